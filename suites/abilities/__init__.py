"""What the model can do besides knowing the edited facts."""
