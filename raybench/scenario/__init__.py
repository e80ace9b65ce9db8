"""The typed, validated scenario."""
