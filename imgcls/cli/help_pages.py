"""The texts of the help of each command on one screen; the defaults come from the schema."""

from typing import NamedTuple


class Page(NamedTuple):
    """The help of a command on one screen.

    Args:
        words: What may be given without an option.
        about: What the command does.
        often: Key -> text, of the keys that are changed most often.
        examples: Command lines.
    """

    words: str
    about: str
    often: dict[str, str]
    examples: tuple[str, ...]


_DEVICES = {"trainer.devices": "number of GPUs or processes, or a list such as [0,2]"}
_BATCH = {"data.batch_size": "images per batch, in each process"}
_FIT = {
    "model.model_name": "Hub id or folder of the pretrained model",
    "trainer.max_epochs": "epochs",
    "model.optimizer_config.lr": "learning rate; null: by the network",
    **_BATCH,
    "data.image_size": "pixels, or [height, width]; null: the model's",
    "model.freeze_encoder": "true, or the fraction of layers to freeze",
    "data.augmentations.train": "light, medium, strong or a list; null: light",
    "data.validation_split": "share of the images to validate on",
    "experiment.patience": "epochs without progress until it stops",
    "trainer.precision": "16, bf16 or 32; null: by the device",
    **_DEVICES,
    "seed_everything": "seed of the run; true draws one",
}
_EVALUATION = {
    **_BATCH,
    "data.num_workers": "processes that load images; null: by the cores",
    "trainer.accelerator": "cpu, gpu or auto",
    "trainer.precision": "16, bf16 or 32; null: 32",
    **_DEVICES,
    "model.threshold": "multi-label: the least probability of a class",
}
PAGES = {
    "fit": Page(
        "[PHOTOS] [FILE.yaml ...]",
        "Train a classifier, then evaluate the best epoch on validation, and on test if there is one. PHOTOS has one "
        "folder of images per class, or such folders in train/ and val/ (and test/); without val/, a part of train is "
        "held out.",
        _FIT,
        ("imgcls fit photos/ --trainer.max_epochs 5", "imgcls fit --ckpt_path last"),
    ),
    "validate": Page(
        "CHECKPOINT [PHOTOS]",
        "Evaluate a trained model on its validation data, or on PHOTOS, a folder with one folder of images per class. "
        "CHECKPOINT is a .ckpt file, or the folder of a run. Needs no "
        "configuration: the checkpoint has it.",
        _EVALUATION,
        ("imgcls validate runs/NAME/version_0", "imgcls validate best.ckpt --tta hflip"),
    ),
    "test": Page(
        "CHECKPOINT [PHOTOS]",
        "Evaluate a trained model on its test data, or on PHOTOS, a folder with one folder of images per class. "
        "CHECKPOINT is a .ckpt file, or the folder of a run. Needs no configuration: the checkpoint has it.",
        _EVALUATION,
        ("imgcls test runs/NAME/version_0", "imgcls test best.ckpt more_photos/"),
    ),
    "predict": Page(
        "CHECKPOINT [IMAGES ...]",
        "Write a table with the label and the probabilities of each image. CHECKPOINT is a .ckpt file, or the folder "
        "of a run; IMAGES are files, folders, or CSV files with a column 'path'.",
        _EVALUATION,
        ("imgcls predict runs/NAME/version_0 new_photos/", "imgcls predict best.ckpt one.jpg two.jpg --output p.csv"),
    ),
    "tune": Page(
        "FILE.yaml [PHOTOS]",
        "Search the best values of any keys with Optuna; each trial is a fit. The section optuna.search_spaces names "
        "the keys; the same command continues a search.",
        {
            "optuna.n_trials": "number of trials",
            "optuna.search_spaces": "key -> its values",
            "optuna.metric": "what to optimise",
            "optuna.sampler": "how values are chosen",
            "optuna.pruner": "how poor trials are ended early",
            "optuna.n_jobs": "parallel processes",
            "optuna.timeout": "seconds after which no trial starts",
            "trainer.max_epochs": "epochs of a trial",
            "model.model_name": "Hub id or folder of the pretrained model",
            **_DEVICES,
            "seed_everything": "seed of the trials",
        },
        ("imgcls tune search.yaml", "imgcls tune search.yaml photos/ --optuna.n_trials 50"),
    ),
    "check": Page(
        "PHOTOS ... | FILE.yaml",
        "Check the data before training: unreadable, duplicated and leaking images, classes and sizes. PHOTOS has one "
        "folder of images per class, or such folders in train/ and val/ (and test/). Ends with exit code 2 if the "
        "data has faults.",
        {
            "data.dataset_classes.train": "training images, in place of PHOTOS",
            "data.dataset_classes.validation": "validation images",
            "data.dataset_classes.test": "test images",
            "data.group_regex": "finds the group of an image in its path",
            "data.content_hash": "full, sampled or none",
            "data.num_workers": "processes that read images",
        },
        ("imgcls check photos/", "imgcls check photos/ --html check.html --allow unreadable"),
    ),
    "export": Page(
        "CHECKPOINT [IMAGES ...]",
        "Write a trained model with its preprocessing and class names for other programs: transformers, ONNX Runtime "
        "or torch. The written model is compared with imgcls predict on real images; a difference ends with exit code "
        "1. CHECKPOINT is a .ckpt file, or the folder of a run.",
        {"experiment.output_dir": "folder of all runs, for --ckpt_path last"},
        ("imgcls export runs/NAME/version_0", "imgcls export best.ckpt --format onnx --output cats_onnx"),
    ),
    "explain": Page(
        "CHECKPOINT PHOTOS ...",
        "Draw which parts of each image speak for the predicted class, on any network; no layer has to be chosen. "
        "CHECKPOINT is a .ckpt file, or the folder of a run; PHOTOS are files, folders, or CSV files with a column "
        "'path'.",
        {"experiment.output_dir": "folder of all runs, for --ckpt_path last"},
        ("imgcls explain runs/NAME/version_0 photo.jpg", "imgcls explain best.ckpt photos/ --target cat --against dog"),
    ),
}
