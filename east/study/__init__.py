"""Many runs side by side, and their results."""
