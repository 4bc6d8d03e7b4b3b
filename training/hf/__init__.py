"""Models to and from Hugging Face folders.

In: a run's checkpoint with its manifest and tokenizer (export), or a folder of config.json and safetensors (import).
Out: a folder that stock transformers classes load without remote code; or model.json and weights.safetensors for
`--load`. May import corpus, and the rooms training.base to training.run; transformers itself is not needed.
"""
