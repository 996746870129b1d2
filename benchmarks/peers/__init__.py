"""What people build today, measured with the same client on the same machine."""
