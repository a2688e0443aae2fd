"""Errors of the parser as one line with their key."""

from imgcls.runtime.error_messages import explain

_REPORT = """Does not validate against any of the Union subtypes
Subtypes: [<class 'lightning.pytorch.loggers.logger.Logger'>, <class 'bool'>, <class 'NoneType'>]
Errors:
  - Problem with given class_path 'lightning.pytorch.loggers.WandbLogger':
      Requirement 'wandb>=0.12.10' not met. HINT: Try running `pip install -U 'wandb>=0.12.10'`
  - Expected a <class 'NoneType'>
Given value type: <class 'jsonargparse._namespace.Namespace'>"""


def test_constructors_error_names_key_and_class() -> None:
    text, code = explain(ValueError(_REPORT))
    assert code == 2
    assert text.startswith(
        "trainer.logger: lightning.pytorch.loggers.WandbLogger: Requirement 'wandb>=0.12.10' not met"
    )
