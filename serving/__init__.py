"""A small server of pushed generators that speaks TensorFlow Serving's REST protocol."""
