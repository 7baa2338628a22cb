"""The TFX component that measures the generator and blesses it if it is good enough."""
