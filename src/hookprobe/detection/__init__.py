"""What sensors saw, what it means, and the only form of it that may leave the edge."""
