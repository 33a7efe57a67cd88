"""Model-based control with a model that adapts while it acts (Nagabandi et al. 2019)."""
