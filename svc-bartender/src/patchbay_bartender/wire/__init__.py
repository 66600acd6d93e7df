"""What GUIs speak: JSON over WebSocket."""
