"""Measured seconds: FLOPs and bytes come from the specs, only time is taken here."""
