"""Tests of the real binary as processes."""
