"""What CloudFormation knows of a resource once it is made."""

from __future__ import annotations

from typing import ClassVar


class Made:
    """What CloudFormation knows of a resource once it is made: its physical id and its attributes."""

    attribute_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, physical_resource_id: str, **attributes: str) -> None:
        self.physical_resource_id = physical_resource_id
        self._attributes = attributes

    @staticmethod
    def cloudformation_name_type() -> str:
        """Name the property that names the resource."""
        return "Name"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        """Tell whether the resource has an attribute."""
        return attr in cls.attribute_names

    def get_cfn_attribute(self, attribute: str) -> str:
        """Give an attribute."""
        return self._attributes[attribute]

    def is_created(self) -> bool:
        """Tell that the resource is there."""
        return True
