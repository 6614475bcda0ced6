"""Gets the archive and checks that it is CIFAR-100."""
