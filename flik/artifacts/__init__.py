"""Where artifacts lie: the object store, and the signed links that lead to it."""
