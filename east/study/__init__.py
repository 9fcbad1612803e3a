"""Many runs side by side, and what they found."""
