"""Meta-policies that adapt by a gradient step: MAML with a trust region, and ProMP."""
