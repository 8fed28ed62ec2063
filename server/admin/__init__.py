"""What operators ask of a control plane."""
