"""What surrounds every program: params, environment, errors, outputs, the guard."""
