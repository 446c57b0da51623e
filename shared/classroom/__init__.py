"""What makes the pieces of `shared/` a course.

Lowest, so that everything may stand on it (it imports no file of the course but its like):
    errors files ranks state tensors    checks and files that say what is wrong
    gguf llama_files                    how published models are stored
    fetch datasets tales scores         data and how results are measured
    machine fast reports                the device; a faster twin for generation; progress
On top (it may import everything, and only notebooks and the command line import it):
    batches gpt2 heads                  data sets as batches; GPT-2 or its stand-in; attention maps
    counting                            the strongest opponent that only counts
    figures formulas plots widgets      what a notebook shows
    checks                              whether an exercise is solved
    records memory                      runs kept in a file; what loading a model takes
    setup_cell cli execute slides       a notebook's second cell; `python -m shared`
"""
