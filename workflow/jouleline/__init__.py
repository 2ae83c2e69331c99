"""jouleline: measure, model and predict the energy of fine-tuning Transformers."""
