"""The two small Java classes that SPICE is run with, compiled.

Their source is beside this file, in `java/`. They are kept as text so that every way of installing the package brings
them. They are made with Java 17 by

    javac --release 8 -Xlint:-options -g:none -cp .../pycocoevalcap/spice/spice-1.0.jar -d classes java/*.java

and a test compares them with what that command gives.
"""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

_CLASSES = {
    "edu/anu/spice/SpiceRunner.class": (
        "eNqdVul3U0UU/02zDH0daFlKCQIKgqalGC2g2CBKyxZICZJSLKg4TYbmtcl78b2XlirigqK4i7u4bz1+hCNpDz3qd4//j9+sd5IuCU05HnNO"
        "ZjLv3rn3d393efnzn5u/A9iBnw3UwcfhFwggyNA0JEdkJCutwUhiYEilPIbgbtMyvT0MvnBrH8eSKqXejKNkegXZMgQaIEjLKVgMq8Ot8Xmt"
        "4wXLkgNZFTXAsUy7amRoCdfSaO3TOssFVmAlQ72rvH1S5Wwy6Q+fKgubBVZrrAHXk47HsYZhnUoXItIqRNy8mVKRpF73OoOFnLI810ALfPW0"
        "3CGwDuvJqmnlC94x6WUYVlSASHqOaQ0SyDtxF8dGgU24m2H5vELM8tSgchiW5KXjKjoyNIcXWmiNaXdbBO7BvQyGVciVeXIZWEnUKtCmkQRS"
        "MpVRBtqxjeM+gQjur3LYZdtZJSl4PiKzBZU4q5k9VUntjEZUW+0Q2I4dlDHXzCqNbWUNRY4HGUI1+EqmbEc5BnbCp5eHBToRJfSuft4lvRSx"
        "tTEcvx3TUV0gjzCsLbk17Uii4BHTxIqSuZOO6SmH49GqAiozZmAvuji6BfZhP+EuyS0ycJYiiehMEXW+QUUxRWvwfbpGCuILbVDsBxnWVAsS"
        "eWUl8p5pWwZiOMxxRCCOngUgDtBCIBotNVoZFcPBcC1Xp+OLuZmFdgs9lMEEjnE8LnAcSaJ67n4qo4vNo8iklZZOurt8JjCBE70HzuwivuML"
        "lGeUqJh344TuuD6G7eHanhe/3dpXT6XwhEA/TpUbTrtdW6sIklpG7p7EUxxPC5zBM8T1YooMwrMPJxNHy+liWFU1MOY6cQApjrSAApX+sln0"
        "5VIiQKP6xyI92KdvZwTM0qxIZW1XcQzP5nV2etmjeuwYGEJOwILNsFSm08lCPu8o11VpiqHS+NyNkv0hPCvgaPuNeXJKfMrUcK8jU2TQQ4Fj"
        "RGAU56pamiadZ+YItEHlPHdovnVe6sdRbeU5gedxnsZfRmY9PQVjOikX8CLHSwIv45XqdhpzPUVFWWfS0GieS3fMms+2gVfxGsclgdfxxiwd"
        "1TrkRo+r0siPcbxZqZXYfy6lSoXM8XbtSaKHuU6Pv9tOU2z+nDRLr4RabUplubREW4/M92piOa6QuxqqpKis9EnTyxyTTmm8NdFM81zPkfke"
        "5WXstNsYxCcGPsVnHJ8LfIGrDJvm7ZjWiD2sInGZG0hLuiHPypRnO2MMDbnK01+VCZ+5VHZwiBqQpsDmuG0PF/LRhRgXu9g7llf/T1h2efu7"
        "rQul3TKbTVJvRJsQJFa+NvAWvhH4UNeqiOn0dGcl1bfL8T3Dlv8UL8ePDBtur0ovn7IyNpLHOuiPD0z/uaD1HTotp53RHmibALtWUqjHu3iv"
        "LGbr4adXPPDLFHj/TRJhAkvjW/1FNG0tYtUUWvonEOppb/N13MDa9rZAxyQ23MDm9rYgPQi3+yex9QYemMJO0nvo6Lb2InZNYXd/m7/D9xv2"
        "TOIx2g5M4tB1HJ1Ab6c/5N/2K04WcboIGSI3g+MIdQZmfonOYCgQChaRDQX+GEdjD5nLT8Il6RhtPtquUXwZ6tPzNA0u4CIu0b4aV/Ax7Qzv"
        "UyiHEZwmcYDjAw7O0cKxk9NsYhxD0xRh8BYB1zdpWTJNBNaVhdCvx6EGGDqFM0xGSayZXHMdLxRx8SqC49N/j8N/hJAFS8i0VKARl2eQ1BO5"
        "DWToMujqRyUhI6A+fImv6Put/htHT77DD/gJoX8BTBjEaA=="
    ),
    "edu/anu/spice/LmdbTupleDB.class": (
        "eNq9Vml3G1cZfq410rXGk8RRlkZuaJOQtJItReDSNFghxHYc4lZeGikxjgEzlsb2JOpImRk1DltZSkvZCgQDLXtZXPYkNJLdNAlrC2Urhy98"
        "6Tl85w9ADo1574xkazO0X2qfo7nz3nd53uU+c1+8+ew1AG/BSzJa4OGQFHjhY2g/pT6oxrKqMRMbmTqlpW0G3wHd0O2DDJ5Q+ARHK8NGR6lg"
        "69nYUdWaHVLzMjg8frRB4VinYD02MAS1TCGmGoWYldfTWizxQGYqVchntcN95DOvmpZmMWxIrPoiP3GOjTUgkrapGzOt2MQguzZ77TlbxhZs"
        "5bhFwTYEGTY5+oaei03rWS02qtqz5NozoxH6eChR7y0+0SgKJxp9xEVCtyrYjjcwSELMsLmZHsftDNtqNxK6cXokb+s5Q8ZO7OJ4o4Ld2NMA"
        "9gj9EFifNqdbNi26Q80iTCTW8h4Pn/TjToQ4wgo60cWwc0U1PSsqZlOOqpFRzUy/+05RvMdTRyb3M3QkGpTLSnEBO6pgL2IMiqmpmd5slsIK"
        "sIeaYlzbVbiqyQlKM96GN6Ob4y6FJvBuhvW12wytuq2Zqp0zGbaGqq0Hy3LycA/2c7xVQQ/iDIFGFQY+q1rD2pztTO5JYfE2BQfxdmqm4Yg3"
        "V3xXzXu8Fb0MTJLRjn4FhzFAcDQjY43p9izDlibjFD4plN+h4CgGqZNZzZgRqhR0UGzcpyCBIQa/VZiyHAuR1eBguNGTTAM3omAU91NQUXNR"
        "8DWC0lFMVqaJaj44MjCX1pyR4DjOsL2ycdxIz2rp01qmSkNGCmPixL+T5rbsvNYH+W/FSSqEX6TwLgXvxntobKx8VqfChZoAGgw3OVYc761g"
        "dJrTa5rqOdFjGZPwtCJNEW6XoWGaY0bBLPTK6V9VF6dDtdzB2BOaaOxYw3gJ56dFellioVDVbn8umyULNz+hZSjIIU+9UjOZujpXnNPgmLA4"
        "bAUFPMiwroawyDRfIGD7m5iuibRaJLzPCR47x3BH6FWbvF/BBwTwtnTOsFXdsO7TznF8qIGGRvKa4RKFHx/GRzg+quBjeJhhR61ehSJW9anq"
        "/ccGelM0/7sS/085Lrw/ouBR4drXOzo6MHxYEMhjCj6JT9EXw9DO9hWmpzVTy4yZ4nQzpF8ji9RzYFX08MoI1wZxSvUZBZ/F484pts1zSfFR"
        "2FhDKiQixc8LRvpCTX9pg+OLNQNMLd89IPxwfInhlvqB7yvo2YxmtuE8vqLgCcE1PvoMUXNkzOOrYibvF5tfV/ANsdlKmyfUbEETw9gtdL6t"
        "4Cl8R4x8nvKjodwe6m9kinKcuDic31PwfSwQqZ3K6cYqOTvaonZJ7UxBM9Ja9Tw6JDmV1eJNSWgePxAofsgQDa35qWyKZh4/VvAT/JQys3PJ"
        "MtnV0uxKlAu4yHFJwc8F221t3kCinLNiIbQvKyiKK4o3nc1ZGsdipTGO29SsmTsrUpJRwrMKruA56iUd62Qhnzc1y9Iyq1xXa0FcQMeYJpa+"
        "I41AyUt/zrBo5N1OEZEn9RlDtQsmrdO195cDjfaJJux34H8Iq20POv/U2v5choKto4OXPk1hUgI2x2+pAhPNEIfXblttTNJNvVrd1wKavuk0"
        "2SlTNSw17bLJzlA9TYfr7n4Mj9XrNHUffl1qvp54vSaBQKgOrxib6dDrAEYEUgYNQzP7s6rl3Ju9DgkRw7bR/R3woANXcQ0M1+mtBYcQENdW"
        "WgfEZZzkv3DkvyQCYoKE6PdXJCnBB4meD3WWwDqvgI+X4L8MubNLuor2cU8gkFzE5svo6HwGHZ6ruG0RO56EdFG8XsIdi4gs4U0MQ/TYx4jv"
        "IrQ4IIK1D0cDh4roewJbO6OeaBFHxOuRTBH3ljC8sPzXBawbuoLUeKSEE9cvEpwYzsDGMVr9mgDdBt8yiVo42jhxHP6DDRz37L2Blj6OY35K"
        "ZXQlCZ2S8NLzaFdgvKWICfI7SXmow9I+aYsUufYUdkWFKLJF6g5MCY1FZEo4VcQDYw9LbGH5ZUpHjni6o0s448HYRfLlotiAlpvYxPEbjkl2"
        "A3tIvA3PU3ARtoOeovbrhXXXEs62UN6TFyD+3Gq/QPq/w+/L+gZVWsAcKpd5qMup3XC0XLt90UrteiThMigt4X0ttNERCa4I3CAuzoXlFyIX"
        "qrB6XhFFMqlO+6lOZQwv0vYf8EcXAztOpWol+T/LDfRexQfHPZfwUHJcuoSPU7M/IWB9mmEJn6vC9ngF2/ke6QrmxwWULztYS3iyxytevyZe"
        "J4v4Zo8v6Cub7RYrx26yhwe97f4ivhWYCvJFfLeIpymBv1fycp2t+nEzjAS9YmyebpfJsIgfFfGzhWUj8jx2RIp4ZgHBYVoH3HVbjxQNSkUs"
        "Ra/XzZYHt+I5akaJyvAS/kZP4GX8Y2XWDkF+BXdyXKDK3cTdHOc55ml9A53/wl33cpSW6ZhJziiajhodFvrh/wZzp9Et9Z/I359pJdPzPF08"
        "/uLz/xfxs1Ru"
    ),
}


def read_class(name: str) -> bytes:
    """One compiled class.

    Args:
        name: path of the class file.
    Returns:
        the file's bytes.
    """
    return zlib.decompress(base64.b64decode(_CLASSES[name]))


def write_classes(folder: Path) -> None:
    """Write the compiled classes as files.

    Args:
        folder: root for the class path.
    """
    for name in _CLASSES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read_class(name))
