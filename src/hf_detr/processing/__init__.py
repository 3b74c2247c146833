"""Pictures and annotations to tensors, and predictions to detections: flat, and travelling with the weights."""
