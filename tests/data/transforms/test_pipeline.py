"""Augmentation lists: what they do, that chance follows from the seed, and errors that name the item."""

import random
import re
from collections import Counter
from typing import Any, Literal, get_args

import albumentations as A
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from imgcls.config.class_path import Spec
from imgcls.data.config import Augmentations
from imgcls.data.transforms.build import build_pipeline, build_transform, find_normalization
from imgcls.data.transforms.model_transforms import eval_specs, less_cropped, resize_spec
from imgcls.data.transforms.presets import preset_specs
from imgcls.data.transforms.train_and_eval import Pipelines
from imgcls.errors import ConfigError
from imgcls.images import Pixels
from imgcls.types import Normalization, Preprocessing

Kernel = Literal["opencv", "torchvision", "pillow"]
WHERE = "data.init_args.augmentations.train"
IMAGE: Pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def item(class_path: str, /, **init_args: Any) -> Spec:
    return {"class_path": class_path, "init_args": init_args}


def refusal(*specs: Spec) -> str:
    with pytest.raises(ConfigError) as caught:
        build_pipeline(list(specs), WHERE).check(IMAGE)
    return str(caught.value)


# preprocessing of a user's own, named in the lists below by class_path


def darker(image: Pixels, by: int = 10) -> dict[str, Any]:
    return {"image": np.maximum(image, by) - np.uint8(by)}


class Stripes:
    def __init__(self, every: int) -> None:
        self.every = every

    def __call__(self, image: Pixels) -> dict[str, Any]:
        striped = image.copy()
        striped[:: self.every] = 0
        return {"image": striped}


def noisy(image: Pixels) -> dict[str, Any]:
    noise = random.randrange(100) + np.random.randint(0, 50, image.shape) + torch.randint(50, image.shape).numpy()
    return {"image": (image // 2 + noise // 2).astype(np.uint8)}


class MyNormalize(A.Normalize):  # type: ignore[misc]  # ships no types
    pass


def only_the_array(image: Pixels) -> Pixels:
    return image


# -- chance


def test_pipeline_draws_each_item_by_itself() -> None:
    flips = build_pipeline([item("albumentations.HorizontalFlip", p=0.5), item("VerticalFlip", p=0.5)], WHERE)
    names = {IMAGE[::v, ::h].tobytes(): (v, h) for v in (1, -1) for h in (1, -1)}
    found = Counter(names[flips(IMAGE, seed).tobytes()] for seed in range(1000))
    assert len(found) == 4
    assert all(190 < count < 310 for count in found.values())  # 250 expected, 4.4 standard deviations either way


NESTED = [
    item("OneOf", transforms=[item("HorizontalFlip"), item("Compose", transforms=[item("ColorJitter", p=1)])], p=0.9),
    item("SomeOf", transforms=[item("GaussNoise", p=1), item("Rotate", p=1), item(f"{__name__}.noisy")], n=2, p=1),
]


@pytest.mark.parametrize("specs", [NESTED, [item(f"{__name__}.noisy")]], ids=["nested", "callable"])
def test_pipeline_gives_the_same_for_the_same_seed(specs: list[Spec]) -> None:
    first, second = build_pipeline(specs, WHERE), build_pipeline(specs, WHERE)
    results = [first(IMAGE, seed) for seed in range(20)]
    for seed in reversed(range(20)):
        np.testing.assert_array_equal(second(IMAGE, seed), results[seed])
    assert len({result.tobytes() for result in results}) == 20


def seed_globals() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def test_pipeline_without_callables_leaves_the_global_generators_alone() -> None:
    pipeline = build_pipeline(
        [item("ColorJitter", p=1), item("OneOf", transforms=[item("GaussNoise", p=1)], p=1)], WHERE
    )
    seed_globals()
    expected = noisy(IMAGE)["image"]
    seed_globals()
    assert pipeline(IMAGE, 1).tobytes() != IMAGE.tobytes()
    np.testing.assert_array_equal(noisy(IMAGE)["image"], expected)


# -- items


def test_pipeline_applies_callables_in_the_order_of_the_list() -> None:
    stripes, dark = item(f"{__name__}.Stripes", every=2), item(f"{__name__}.darker", by=200)
    brighter = item("InvertImg", p=1)
    expected = 255 - (np.maximum(IMAGE, 200) - 200)
    expected[::2] = 0
    np.testing.assert_array_equal(build_pipeline([dark, brighter, stripes], WHERE)(IMAGE, 0), expected)


def test_pipeline_takes_totensorv2() -> None:
    for class_path in ("albumentations.pytorch.ToTensorV2", "ToTensorV2"):
        pipeline = build_pipeline([item("Resize", height=8, width=9), item(class_path)], WHERE)
        assert pipeline.check(IMAGE) == (8, 9)
        assert pipeline(IMAGE, 0).shape == (8, 9, 3)


def test_pipeline_applies_normalize_as_written() -> None:
    result = build_pipeline([item("Normalize", mean=[0.5] * 3, std=[0.25] * 3, max_pixel_value=200)], WHERE)(IMAGE, 0)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, (IMAGE - 100.0) / 50, atol=1e-5)


WRONG = {
    "HorizontalFlp": (item("albumentations.HorizontalFlp"), "has no 'HorizontalFlp'; did you mean 'HorizontalFlip'?"),
    "module": (item("albumentation.HorizontalFlip"), "cannot import 'albumentation': No module named 'albumentation'"),
    "argument": (item("Resize", widht=3, height=4), "has no argument 'widht'; did you mean 'width'?"),
    "old argument": (item("RandomResizedCrop", height=3, width=4), "has no argument 'height'; it takes size, scale,"),
    "value": (item("HorizontalFlip", p=3), "p: Input should be less than or equal to 1"),
    "word": (item("Resize", height=3, width=3, interpolation="cubic"), "interpolation: Input should be 0, 6, 1, 2, 3"),
    "missing": (item("Resize", height=3), "needs the argument 'width'"),
    "key": ({"class_path": "Blur", "args": {}}, "unknown key 'args'; expected 'class_path' and 'init_args'"),
    "list": ({"class_path": "Blur", "init_args": [3]}, "init_args must be a mapping, got [3]"),
    "not callable": (
        item("collections.OrderedDict"),
        "must be an Albumentations transform or callable as f(image=array)",
    ),
    "function argument": (item(f"{__name__}.darker", bye=3), "has no argument 'bye'; did you mean 'by'?"),
    "class argument": (item(f"{__name__}.Stripes"), "needs the argument 'every'"),
    "returns": (item(f"{__name__}.only_the_array"), "must return {'image': array}, got ndarray"),
    "signature": (
        item("torch.nn.Flatten"),
        "fails on an image of shape (40, 50, 3): Flatten.forward() got an unexpected",
    ),
    "too small": (item("RandomCrop", height=64, width=64), "fails on an image of shape (40, 50, 3): Crop size"),
    "floats": (
        item("ToFloat"),
        "returns float32 pixels; pixels must stay uint8, since the model normalises them; remove",
    ),
    "floats by chance": (item("ToFloat", p=0.01), "returns float32 pixels; pixels must stay uint8"),
    "own floats": (item(f"{__name__}.MyNormalize"), "returns float32 pixels; pixels must stay uint8"),
    "nested floats": (
        item("OneOf", transforms=[item("Normalize")], p=0.5),
        "returns float32 pixels; pixels must stay uint8",
    ),
    "nested normalisation": (
        item("Compose", transforms=[item("Normalize")]),
        "use albumentations.Normalize at the top level of the list",
    ),
    "boxes": (item("BBoxSafeRandomCrop"), "cannot be used, since it needs more than an image ('bboxes')"),
    "volume": (item("CoarseDropout3D"), "needs more than an image ('volume')"),
    "metadata": (item("OneOf", transforms=[item("FDA")], p=1), "needs more than an image (FDA requires ['fda"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_pipeline_names_the_item_that_is_wrong(mistake: str) -> None:
    spec, message = WRONG[mistake]
    text = refusal(item("VerticalFlip"), spec)
    assert text.startswith((f"{WHERE}[1] {spec['class_path']}: ", f"{WHERE}[1]: "))
    assert message in text
    assert "\n" not in text


def test_a_tensor_comes_last() -> None:
    text = refusal(item("Resize", height=8, width=9), item("ToTensorV2"), item("HorizontalFlip"))
    assert text == f"{WHERE}[1] ToTensorV2: returns a tensor, which later transforms cannot process; put it last"


def test_an_item_that_clips_normalised_pixels_is_refused() -> None:
    text = refusal(item("Normalize"), item("ColorJitter"))
    assert text == (
        f"{WHERE}[1] ColorJitter: clips pixels to 0..1, which normalised pixels exceed; put it before "
        "albumentations.Normalize"
    )
    rest = [item("CoarseDropout"), item("Blur"), item("Rotate"), item("RandomCrop", height=8, width=8)]
    assert build_pipeline([item("Normalize"), *rest], WHERE).check(IMAGE) == (8, 8)


def test_pipeline_names_the_place_of_a_nested_item() -> None:
    text = refusal(item("OneOf", transforms=[item("HorizontalFlip"), item("Blur", blur_limt=3)]))
    assert text == f"{WHERE}[0].transforms[1] Blur: has no argument 'blur_limt'; did you mean 'blur_limit'?"


def test_pipeline_refuses_a_text_and_a_grey_image() -> None:
    with pytest.raises(ConfigError, match=r"train\[0\]: expected .*class_path.*, got 'HorizontalFlip'"):
        build_pipeline(["HorizontalFlip"], WHERE)  # type: ignore[list-item]
    assert (
        refusal(item("ToGray", num_output_channels=1))
        == f"{WHERE}: must return images of shape (H, W, 3), got (40, 50)"
    )


def test_pipeline_refuses_floats_that_only_some_images_get() -> None:
    pipeline = build_pipeline([item("OneOf", transforms=[item("ToFloat", p=1), item("NoOp", p=1)], p=1)], WHERE)
    with pytest.raises(
        ConfigError, match=re.escape(f"{WHERE}: returns float32 pixels for some images; pixels must stay uint8")
    ):
        [pipeline(IMAGE, seed) for seed in range(20)]


# -- sizes


@pytest.mark.parametrize(
    ("specs", "size"),
    [
        ([item("Resize", height=8, width=9)], (8, 9)),
        ([item("RandomResizedCrop", size=[8, 9]), item("HorizontalFlip")], (8, 9)),
        ([item("HorizontalFlip")], None),
        ([item("OneOf", transforms=[item("Resize", height=n, width=n, p=1) for n in (8, 9)], p=1)], None),
        ([item("SmallestMaxSize", max_size=8)], None),
        ([item("PadIfNeeded", min_height=60, min_width=60)], None),
        ([item("Resize", height=8, width=9), item("Resize", height=7, width=7, p=0.1)], None),
        ([item("Resize", height=8, width=9), item("Resize", height=7, width=7, p=0)], (8, 9)),
    ],
)
def test_pipeline_check_tells_the_size_that_every_image_gets(specs: list[Spec], size: tuple[int, int] | None) -> None:
    assert build_pipeline(specs, WHERE).check(IMAGE) == size


SPREADING = [
    item("RandomScale", p=0.02),
    item("CropAndPad", percent=[-0.2, 0.2], keep_size=False),
    item("RandomCropFromBorders"),
    item("Affine", rotate=[-45, 45], fit_output=True),
    item("Rotate", crop_border=True),
]


@pytest.mark.parametrize("spec", SPREADING, ids=lambda spec: spec["class_path"])
def test_a_list_that_no_resize_in_front_brings_to_one_size_is_refused(spec: Spec) -> None:
    lists = Augmentations(train=[spec])
    with pytest.raises(ConfigError, match=r"images of different sizes, even after .*; end the list with a"):
        Pipelines(lists, lambda: Preprocessing(size=(32, 32))).make("train", IMAGE)
    lists = Augmentations(train=[spec, item("Resize", height=8, width=9)])
    made = Pipelines(lists, lambda: Preprocessing(size=(32, 32))).make("train", IMAGE)
    assert {made(IMAGE, seed).shape for seed in range(20)} == {(8, 9, 3)}


class OwnGenerator:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __call__(self, image: Pixels) -> dict[str, Any]:
        return {"image": image ^ self.rng.integers(0, 2, image.shape, dtype=np.uint8)}


@pytest.mark.parametrize(("name", "lines"), [("OwnGenerator", 1), ("noisy", 0)])
def test_a_generator_of_ones_own_is_said(name: str, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    lists = Augmentations(train=[item("Resize", height=8, width=9), item(f"{__name__}.{name}")])
    Pipelines(lists, Preprocessing).make("train", IMAGE)
    assert len([text for text in caplog.messages if "runs are not reproducible" in text]) == lines


ODD_SIZES = [(37, 91), (91, 37), (300, 20), (33, 33), (1, 1), (501, 333)]


@pytest.mark.parametrize("shape", ODD_SIZES)
@pytest.mark.parametrize("shortest_edge", [None, 48, 20])
@pytest.mark.parametrize("kernel", get_args(Kernel))
def test_default_specs_give_the_models_size(shape: tuple[int, int], shortest_edge: int | None, kernel: Kernel) -> None:
    preprocessing = Preprocessing(size=(32, 40), shortest_edge=shortest_edge, kernel=kernel)
    image = np.full((*shape, 3), 77, dtype=np.uint8)
    for specs in (eval_specs(preprocessing), preset_specs("light", preprocessing), [resize_spec(preprocessing)]):
        assert build_pipeline(specs, WHERE)(image, 0).shape == (32, 40, 3)


def test_eval_specs_resize_the_shorter_side_and_crop_the_middle() -> None:
    wide = np.zeros((64, 192, 3), dtype=np.uint8)
    wide[:, 64:128] = 255
    crop = build_pipeline(eval_specs(Preprocessing(size=(28, 28), shortest_edge=32)), WHERE)(wide, 0)
    assert crop.min() == 255
    squeezed = build_pipeline(eval_specs(Preprocessing(size=(30, 30), shortest_edge=None)), WHERE)(wide, 0)
    assert squeezed[15, [2, 15, 27], 0].tolist() == [0, 255, 0]


@pytest.mark.parametrize(("edge", "kept"), [(256, 240), (235, 229), (224, 224), (200, 200), (None, None)])
@pytest.mark.parametrize("size", [(224, 224), (224, 160)])
def test_less_cropped_keeps_half_of_the_border_that_a_model_cuts_off(
    edge: int | None, kept: int | None, size: tuple[int, int]
) -> None:
    theirs = Preprocessing(size, edge, "bicubic")
    assert less_cropped(theirs) == Preprocessing(size, kept, "bicubic")


@pytest.mark.parametrize(("size", "edge", "kept"), [(320, 366, 343), (96, 110, 103), (224, 256, 240)])
def test_another_size_keeps_the_share_of_the_border(size: int, edge: int, kept: int) -> None:
    expected = Preprocessing(size=(224, 224), shortest_edge=256).resized((size, size))
    assert (expected.size, expected.shortest_edge) == ((size, size), edge)
    assert less_cropped(expected).shortest_edge == kept


def test_presets_crop_with_torchvision_unless_the_run_is_older() -> None:
    crops = {}
    for kernel in get_args(Kernel):
        [crop, *_] = preset_specs("medium", Preprocessing(interpolation="bicubic", kernel=kernel))
        crops[kernel] = crop
    assert crops["torchvision"]["class_path"] == "imgcls.RandomResizedCrop"
    assert crops["torchvision"]["init_args"]["interpolation"] == "bicubic"
    assert crops["pillow"] == crops["torchvision"]  # Pillow's takes three to four times as long
    assert crops["opencv"]["class_path"] == "albumentations.RandomResizedCrop"


def test_a_size_that_is_not_square_shows_whole_images_of_that_shape() -> None:
    expected = Preprocessing(size=(224, 224), shortest_edge=256).resized((160, 320))
    assert [spec["class_path"] for spec in eval_specs(less_cropped(expected))] == ["imgcls.Resize"]
    gradient = np.tile(np.linspace(0, 255, 640, dtype=np.uint8)[None, :, None], (320, 1, 3))
    [crop, *_] = preset_specs("light", expected)
    crop["init_args"]["scale"] = [1, 1]  # the largest crop of that shape is the whole image
    crop["init_args"]["ratio"] = [crop["init_args"]["ratio"][0] * 4 / 3] * 2
    shown = build_pipeline([crop], WHERE)(gradient, 0)
    assert shown.shape == (160, 320, 3)
    assert shown[:, 0].max() <= 1
    assert shown[:, -1].min() >= 254


def test_a_list_without_a_size_is_resized_to_image_size_and_one_with_another_size_is_refused() -> None:
    lists = Augmentations(train=[item("HorizontalFlip")], eval=[item("Resize", height=8, width=9)])
    pipelines = Pipelines(lists, lambda: Preprocessing(size=(24, 24)), (24, 24))
    assert pipelines.make("train", IMAGE)(IMAGE, 0).shape == (24, 24, 3)
    with pytest.raises(ConfigError, match=r"image_size is 24 x 24, but .*augmentations.eval returns images of 8 x 9"):
        pipelines.make("eval", IMAGE)


@pytest.mark.parametrize(("given", "edge"), [(None, 240), ("pretrained", 256)])
def test_evaluation_sees_more_than_the_models_own_crop_unless_that_is_asked_for(given: Any, edge: int) -> None:
    pipelines = Pipelines(Augmentations(eval=given), lambda: Preprocessing(size=(224, 224), shortest_edge=256))
    resize, crop = pipelines.eval_specs()
    assert resize["init_args"]["edge"] == edge
    assert (crop["init_args"]["height"], crop["init_args"]["width"]) == (224, 224)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (Augmentations(eval="model"), "augmentations.eval must be a list or one of pretrained, got 'model'"),  # type: ignore[arg-type]
        (Augmentations(train="more"), "augmentations.train must be a list or one of light, medium, strong, got 'more'"),  # type: ignore[arg-type]
    ],
)
def test_a_name_of_no_list_is_refused(lists: Augmentations, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pipelines(lists, Preprocessing)


@pytest.mark.parametrize("kernel", get_args(Kernel))
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_resize_spec_smooths_what_it_shrinks(interpolation: str, kernel: Kernel) -> None:
    board: NDArray[np.uint8] = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    spec = resize_spec(Preprocessing(size=(16, 16), interpolation=interpolation, kernel=kernel))
    small = build_pipeline([spec], WHERE)(np.repeat(board[:, :, None], 3, axis=2), 0)
    assert set(np.unique(small[2:-2, 2:-2])) <= {127, 128}  # the kernels are cut off at the border


# -- normalisation


def test_find_normalization_scales_to_pixels_of_0_to_1() -> None:
    specs = [item("HorizontalFlip"), item("albumentations.Normalize", mean=[0.5, 0.4, 0.3], std=0.2)]
    assert find_normalization(specs, WHERE) == Normalization((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    of_1 = find_normalization([item("Normalize", mean=[127.5] * 3, std=[51.0] * 3, max_pixel_value=1)], WHERE)
    assert of_1 is not None
    np.testing.assert_allclose([of_1.mean, of_1.std], [[0.5] * 3, [0.2] * 3])


def test_find_normalization_finds_none() -> None:
    assert find_normalization(None, WHERE) is None
    assert find_normalization([item("HorizontalFlip")], WHERE) is None


def test_find_normalization_is_what_the_list_does() -> None:
    specs = [item("Normalize", mean=[0.5, 0.4, 0.3], std=[0.1, 0.2, 0.3], max_pixel_value=128)]
    found = find_normalization(specs, WHERE)
    assert found is not None
    by_model = (IMAGE / 255 - np.array(found.mean)) / np.array(found.std)
    np.testing.assert_allclose(build_pipeline(specs, WHERE)(IMAGE, 0), by_model, atol=1e-5)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (
            [item("Normalize", normalization="image")],
            "[0] Normalize: must have normalization 'standard' and p 1",
        ),
        ([item("Normalize", p=0.5)], "[0] Normalize: must have normalization 'standard' and p 1"),
        ([item("Normalize", mean=[0, 0], std=[1, 1])], "[0] Normalize: mean and std must have one or three values"),
        ([item("Normalize", std=[0, 0, 0])], "[0] Normalize: std must be above 0, got (0.0, 0.0, 0.0)"),
        ([item("Normalize"), item("Normalize")], "[1] Normalize: the list already normalises with"),
        ([item("Normalize", men=3)], "[0] Normalize: has no argument 'men'; did you mean 'mean'?"),
    ],
)
def test_find_normalization_refuses_what_a_model_cannot_keep(specs: list[Spec], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(WHERE + message)):
        find_normalization(specs, WHERE)


def test_build_item_leaves_the_spec_as_it_is() -> None:
    spec = item("OneOf", transforms=[item("HorizontalFlip", p=0.5)])
    build_transform(spec, WHERE)
    assert spec == item("OneOf", transforms=[item("HorizontalFlip", p=0.5)])
