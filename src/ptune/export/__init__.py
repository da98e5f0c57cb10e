"""Whole classifiers as graphs for other runtimes: from token ids to logits, with the prompt and the head inside.

The modules, in the order in which an export needs them:

    write       checks what is asked for, and writes a folder completely or not at all
    packages    the formats, and the packages that each needs
    graph       a classifier as one traced program
    places      finds the second text and the mask token inside the graph
    tokenizer   tokenizer.json, which cuts and pads by itself
    task        config.json
    to_onnx, to_openvino, to_torch   a program as a file, and that file as a function
    check       compares the files with the classifier that they were made from
    readme      README.md, with the lines of Python that run the model
"""
