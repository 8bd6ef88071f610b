"""Addresses of the Hub are read and written alike, and what is none says what one looks like."""

import pytest

from enclap_hf.hub.hub_addresses import HubAddress, is_repository_name


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://owner/name", HubAddress("owner/name")),
        ("hf://owner/name@v1.0", HubAddress("owner/name", revision="v1.0")),
        ("hf://owner/name/a/b.pt", HubAddress("owner/name", path="a/b.pt")),
        ("hf://spaces/owner/name/ckpt", HubAddress("owner/name", "space", None, "ckpt")),
        ("hf://datasets/owner/name@refs%2Fpr%2F1/x", HubAddress("owner/name", "dataset", "refs/pr/1", "x")),
        ("hf://spaces/owner/name@" + "0" * 40 + "/x", HubAddress("owner/name", "space", "0" * 40, "x")),
    ],
)
def test_an_address_is_read_and_written_alike(text, address):
    assert HubAddress.parse(text) == address and str(address) == text


def test_what_people_write_instead_is_understood():
    assert HubAddress.parse("owner/name") == HubAddress("owner/name")
    assert HubAddress.parse("hf://spaces/owner/name/") == HubAddress("owner/name", "space")


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://name",
        "hf://owner/",
        "hf://owner/name@",
        "hf://owner/na me",
        "hf://a/b/../../c",
        "hf:///a/b",
        "hf://spaces/owner",
    ],
)
def test_what_is_no_address_says_what_one_looks_like(text):
    with pytest.raises(ValueError, match="expected hf://OWNER/NAME") as raised:
        HubAddress.parse(text)
    assert text in str(raised.value)


def test_a_path_of_three_parts_names_no_repository():
    assert is_repository_name("facebook/bart-base")
    assert not any(is_repository_name(text) for text in ("a/b/c", "bart-base", "./folder", "../folder", "a/b.pt/"))
