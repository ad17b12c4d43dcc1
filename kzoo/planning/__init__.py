"""What a recipe would need on devices that may not be here: memory, time, money."""
