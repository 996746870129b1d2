"""Calls to addresses that tenants choose. The only place from where such a call may be made."""
