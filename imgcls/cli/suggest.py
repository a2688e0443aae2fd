"""The keys that were probably meant by one that does not exist."""

from collections.abc import Iterable
from difflib import get_close_matches

from imgcls.errors import join_keys

_OTHER_NAMES = {  # key, with a value where the name implies one -> what other programs call it; the first known counts
    "images": "source image img_path input files file photos",
    "ckpt_path": "checkpoint ckpt weights load load_from resume_from pretrained_weights",
    "ckpt_path=last": "resume auto_resume",
    "data.augmentations.train": "augment augmentation augmentations aug auto_augment aa transform transforms",
    "data.batch_size": "b bs batch batchsize train_batch_size per_device_train_batch_size",
    "data.class_names": "classes names labels",
    "data.dataset_classes.test": "test test_dir test_data",
    "data.dataset_classes.train": "train train_dir train_data data_dir data_path dataset root photos images input",
    "data.dataset_classes.validation": "val valid val_dir val_data validation_dir",
    "data.image_size": "img imgsz img_size image_size input_size size resolution crop_size",
    "data.num_workers": "j workers num_workers dataloader_num_workers",
    "data.validation_split": "val_split split val_size val_fraction",
    "experiment.custom_folder_name": "name run_name exp exp_name experiment_name",
    "experiment.output_dir": "project output out output_dir out_dir save_dir log_dir",
    "experiment.patience": "patience early_stopping early_stop early_stopping_patience",
    "model.freeze_encoder": "freeze frozen freeze_backbone freeze_layers",
    "model.model_name": "arch architecture backbone network net encoder a model.name",
    "model.num_classes": "nc n_classes",
    "model.optimizer_config.lr": "learning_rate lr0 base_lr",
    "model.optimizer_config.name": "optimizer optim opt",
    "model.optimizer_config.weight_decay": "wd decay",
    "model.scheduler_config.name": "scheduler lr_scheduler lr_scheduler_type sched",
    "model.scheduler_config.warmup_epochs": "warmup",
    "model.loss_config.label_smoothing": "smoothing",
    "seed_everything": "seed random_seed",
    "trainer.accelerator": "device",
    "trainer.accelerator=cpu": "cpu no_cuda",
    "trainer.deterministic=true": "reproducible",
    "trainer.devices": "gpus gpu num_gpus n_gpus ngpus",
    "trainer.gradient_clip_val": "clip clip_grad max_norm max_grad_norm",
    "trainer.max_epochs": "e epoch epochs num_epochs n_epochs num_train_epochs",
    "trainer.precision=16": "amp fp16 half mixed_precision",
    "trainer.precision=bf16": "bf16",
    "tta=hflip": "augmented",
}
_KEYS: dict[str, list[str]] = {}
for _key, _names in _OTHER_NAMES.items():
    for _name in _names.split():
        _KEYS.setdefault(_name, []).append(_key)
ABSENT = {  # what other programs have -> what to use instead
    "dropout": "against overfitting: --data.augmentations.train strong, --model.optimizer_config.weight_decay or "
    "--model.loss_config.label_smoothing",
}


def nearest(section: str, name: str, siblings: list[str], known: Iterable[str]) -> list[str]:
    """Return the dotted keys that were probably meant, with ``=value`` where the name implies one.

    Args:
        section: Where the unknown name was found; empty at the top.
        name: The unknown name.
        siblings: The names that the section has.
        known: All dotted keys; searched by their last part.
    """
    plain = name.replace("-", "_").lower()
    elsewhere: dict[str, list[str]] = {}
    for key in known:
        elsewhere.setdefault(key.rpartition(".")[2], []).append(key)
    if typed := next((each for each in siblings if _one_edit(plain, each)), None):
        return [join_keys(section, typed)]
    named = _KEYS.get(join_keys(section, plain)) or _KEYS.get(plain, [])
    all_known = {key for keys in elsewhere.values() for key in keys}
    if found := [key for key in named if key.partition("=")[0] in all_known]:
        return found[:1]
    if found := elsewhere.get(plain) or next((elsewhere[each] for each in elsewhere if _one_edit(plain, each)), []):
        return [key for key in found if key.partition(".")[0] == section.partition(".")[0]] or found
    if close := get_close_matches(plain, siblings, 1):
        return [join_keys(section, close[0])]
    close = get_close_matches(plain, elsewhere, 1, 0.75)
    return elsewhere[close[0]] if close else []


def _one_edit(found: str, known: str) -> bool:
    """Whether a letter is missing, added or another, or two neighbours are swapped."""
    pairs = zip(found, known, strict=False)
    start = next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(found), len(known)))
    left, right = found[start:], known[start:]
    return left[1:] in {right, right[1:]} or left == right[1:] or left[:2][::-1] + left[2:] == right
