"""What the security pages and the bill of materials claim."""
