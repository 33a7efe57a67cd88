"""M3PO: Meta-Model-Based Meta-Policy Optimization (Hiraoka et al., ACML 2021)."""
