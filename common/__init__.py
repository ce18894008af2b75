"""What all four questions share: data, text, experiments and plots."""
