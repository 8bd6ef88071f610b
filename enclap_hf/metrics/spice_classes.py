"""The three small Java classes that SPICE is run with, compiled.

Their source is beside this file, in `java/`. They are kept as text so that every way of installing the package brings
them. They are made with Java 17 by

    javac --release 8 -Xlint:-options -g:none -cp "SPICE/spice-1.0.jar:SPICE/lib/*:CORENLP" -d classes java/*.java

where SPICE is pycocoevalcap's folder of that name and CORENLP the path of
stanford-corenlp-3.6.0.jar, and a test compares them with what that command gives.
"""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

_CLASSES = {
    "edu/anu/spice/SpiceRunner.class": (
        "eNqdWAl4VFcV/m9muZnJDSEDIZlAKQnbZJlORVppBtEkhDIwJMikwVAVHzMvyYOZN8+ZN0DcUNS6r7W1VHFF41ohlkkgtsWtWqxb3bUurbvi"
        "vrRgJT33zSSZSSZ8fPJ9zHv33nPP+c9+Xs5fPns/gPWsxY0y2DjsAg44GRbuVw4qgbiiDwZ69u1XoyaDc6Oma+YmBpuvqY+jvIiodyilKjEP"
        "8XILVEAQVSqjMyzxNYVnqHZldF3ZF1eDbnAskKKqGGp9pSia+iRNtYAHixhcadXcrKiJJLG0+/bkDmsElkisjrSppEyOOoY6i5OWDGzR4mpP"
        "xjQyZsQkZAkX6rGUY5nANVhOsArpNqvpaEozzGSKUCczpGpduPQ54a7FCom7gWGpbz4qaZ6VDIumjnemND2Pg2M1w7Kpg47MwICaUmOFSG1g"
        "ZESsgk/KaWKon5FTSBcMSSs0okWStTJ45yFr6nPhOgQ4rhd4BtYVeS0ynDbVBGmtpkj3mnAJwKTydVgvcANupBAgN/RYBvKVpJWINuAmjjaB"
        "IDYSKDWWCSh6JpA2tKgaiMhf6WKVxAkZMZ2KYWpJPc2wqjAMiJ+mDwbzsZMxtXggrKVNArMJz+F4rkA7OhiqZ26EdFMdlGzLDSWVVmlJCpVi"
        "GarAZnRxbBG4GVsZFhSLYOBauithmMNWoO/h2EauLlYjD3qnFJRyI4Sw9MEOhibfbMChee0UQo/ATjxvCnF7PC5jOyRFRigrZiPvyGjxmBS3"
        "C7Zy9BHOdDSZUtMr5M7zBfqxhxykGIaqxxj881tzLs+g9NoLBF6IF8lskmwZ1pbgEJrLIig1ebGAgn0knnJAMejymqsSH5TQYwIqBsgKZjK3"
        "y7DYV5K2EUMCGvaT6oY0Zlyfx8V95SBblmd0S5WYvKkLJK1aMRDPpIc4XjKVnlPVK3lIlh03DKQFTElaZeQ8pkQP9KaUKJ0dxCGOwwLDeGlR"
        "7FFEm1qC1HYPqub0omZ26ZPbQcnl5QKvwCvJ20NK3Mw5nSrGq6YgWdHTnkopwzKE3DgiC/NrihPX0tSN1+E2jtcLvAFvnLqtU6wNUD0K7FTM"
        "IcorG2FiCJaw063z+qiIR9CFN+MtHG8VeBveztAwTRIdkoFr0mVFjympWGduTUIdt/Ru2buBald4DnGeiAzxTryL43aBd+OOOeBlRSU+1bp6"
        "aKpI7qJyIRN8q68UyPkFNYVnl9scpyDHe0ibZGowsD+d1ANpLWEQNysZU4FtkZ7uqQS/Ezb5c7fAe/E+Us4imalYxDnPsdDhubZJQt5PZpgt"
        "RHLPEZTjg5Q3FkcK1OP4sHTmR2ZlUJ5XSfYfpSpbir0VQG6cwIjAx/EJygfNVFOK1eWmu7IVaqH8frACn8KnOT4jcI+sjJ65JJR6Q0q6Wz1s"
        "StqTAqcwSgGs08bstM0DlAjulTqdlhkRKklxBGMC4zhDwarEYrOSekr3PS5M4PMc9wncjwfmtJZwIravN0PKb6a+4NzZvivSRVW0qkDNHYpB"
        "Gn4BX+T4ksCX8RWGyqJTEm/I5rahhPirckY5vmqVnZw3ZZ8Zc+M8vs7xsMA3ZE1ZUBwwFEvReDJtlZ1vCXwb3yFMZIJIxjCotBOTmVZbXKis"
        "GeO7NEqUaLDtqcFMQtXNtBuPwOainx8I/BA/ojFK00lDmS/k3bnZL0l/IvBTPEqlTM8kckMdpSELlePnZNYETWCpYUn2S4HHJEdHVIkOEf5f"
        "4dccvxH4LX5XVBo7ksm4qlCh5geVeEbtGZDBt6fQdnkKS/gfBP6IP8k5g/JadvBFJQg5/lx6sIjIak/pekGm6wX8TeDv+AdpYnWBDsWMktYN"
        "vvCVLGZNSxfwL4F/4z+5yVKWs/pSlyLyjKL3SVzkuCTwX9nF6uYjpHnHTMq8zNlazmT/E7iMSYYyTS8cvkL6zPDmZoyVcWYTzM4cBRNlAQ2l"
        "n/SSNa2EOOOFVD1dh6OqNauQTbe0h8JdmynAOmneoopt9kmP2GhkZxSYlDFd3b17Q5G9N/d0d8ldO3HuTMao0NkTimbN8qU6Bk0ilVaTpAzq"
        "laHJmYcwlCAlV0zjSXNWU9SCC5C6ItqgrpgZOYVsuIqpcONckk0krJIGod2aOURV3IqlhRRAZtpMKcYO1RxKxtJVTrbUzZaxazhbLti1bAVD"
        "4wwnTT+YPEB1RUnsiyl0QxlQolQBaSysSBSuHi5EmL+UE7CVuiJ1sVXhZPJAxgjORTnfxd5hQ/3/DnMir3y3ae5ppxKPR6g9BBfCSVZZSfMg"
        "WyVYnSxZIiTH9c64QuWIvLaWYfVV6csZfbssvzIpRWWOGA00gZZR0JWhnpXjUQpJl1wxN60rCtZy0GbyE5V2Kmmnmlb0vQRH8xjYKch/LraA"
        "VeWPLxGhk573TID3nwXxGENluMWexcKWLBZPoLZ/FN4xXLtjAo39E1jV3+pZM4a1Y2juHoV/HM9stq8bx7Pa7M0Oej77RofXfgadDHejdgKh"
        "fq+9xuEfw/YaRxbdx7DWP4Fd/WPo9dySxe5m27oaxzhuHcdeWmURzWJwBC6/5wC9+LNIjKC6ze4lMKlxZOjxMnrY6HGKVLoJd+AuaguMLST8"
        "6+CYxCCcnFVzcI5ajkYOSmaspAMn7IUHYBxGJX1D0icYbNIO7CHYIJ8NEzhC+F4dbrbdh6PjeO0o3jSOd5D2d9L2Xa1ZHDuH491+zwey+NA5"
        "nMjiYxLhGXyS4Rhul2+fZWhzeB102ObMc2vjXifB/1z+Qrm3PH9hu3yTF1xTlG6vK09V4a3IU9XLN0klvG6vOIejWWR3j0w+7uVed+711CjO"
        "ep02S8RRLz+DczbQtub3PFgK59JpnC0S6NEz+FqZpH+s9UGsIB0fGoG3m949ufeKNrtfeuGb/gdaTlIE1uIyRZtBYeRhNdMuuA1iEuvh4DhK"
        "luc4z3Gc0xCESVwP16xdjjKOExxHLIrLWG1tyNUlrHgS7kksIZ8V3AGeQiUdX0TDNvLeJCqKzg3Lp/wiYVkkSzM9F7MlVkbUkqPpw43eZMC3"
        "E347PW+YwCNk8O/taG0+je+3Lj2NH7d6fnYav2i1j+Px0/j9BC7Q+V+6/WSDv/rvxT+zeOKkTJ8ZAXDLCpDPpCAxlolWN4qnsowGYefI5BMj"
        "sG+nmOX5mAUEqpgzbzAXcano4LQmbF7rkLF6CsgG1kj/V8u/FdHOGuZjzfA+DXhQJac="
    ),
    "edu/anu/spice/CaptionParser.class": (
        "eNqdWAlYFOcZfv89mHX5EQQRcdWSRM0uRzdtrElcpYHVmFVAKgQKponD7gAjy8w+M7MeaZujNW1637VJetqDHmmqVhbQRmPsadP7Su+76X23"
        "Sa0J/f6ZXWBh4eHp47P8/z/z3d/7ff83Xnz29FkAG9kqP1xwS/BweFHEULZfPiCHk7I2EN7dt1+JWwxFW1RNtRoZ3MFQlwQfQ8gmSltqMhzX"
        "tXjaMBTNCsuWPqzGw032EtMsZUAx/JDgXoJicAklHEtRyhBQEumwrKXDZkqNK+GonLJUXWuXDVMxGDyacoiU1rUsWkdEyF/GUS6EL9HSwzfJ"
        "alJJiKfLOSqxgsEXd5SY5OAMwS2qadncKzmqsYpBkjXzoGIQWaVDpurhdkPVrA7LUOThiITVDNX59neIv471fqzFcyTUcFyBKxmWTceyWdeT"
        "iqyRhgNyMq3s7mdYEewNtcyhiPgRwDqRjPUU5+AMAjJB1QYisQI8oS7hxNUcQYQY/FY6lVRa5SERzkDLvNaS5wHUcdSjgeIma5puUXiJp3oW"
        "T1PuVcSHMEOxXJPQB2r6ZGPI9ON5eL6Eazk24gUUtenYRvVkkuDjBL3EJNOTiqVrIuQM62Y65uAsEpqdGD+uw/USbuDYjAhD1TxGUXZNxYpp"
        "qTQJrgjOlhLqEnK2cjTihQxLU8L1NoJYs2zFBxnKg6G5gLgOTRzNiJLolJpSkqqmCEQKA0xL1vp1IxHWkqlw7iXlxnka1Q2lraXdxlSTDzcx"
        "eAk3icN+Ot/MEcNOqiJTPkyRKpBaUV0t5MO0PU2GIR8WRvmxC+5i7Ea7hBdx7EEH+ZJvN5WOqd6h2GUa8+MWkLRujhejJ0dq62qVLXLbPawS"
        "GL3BWCwUk7A3r+47B4XN5dQeXsJxG24naiNN1NcGWxao3MhMMO9Ja5rcl1SoYGTK3GxPm9NqMiHKZR/cPiSoKuy0GA3iST/HAMjEIjmVUjR6"
        "2VAoVC3zyIwIEfuFiCGG1cHYwoTDHBp0SrOlOy8ZlgfnskS8FAx46OdHL0xRnRTuppl2OUHbYejpVKRQIObK3BnqEgk9wHEQhyjGciIxCxa5"
        "wugVWu/geKlo0F5CoGEJzpdz3Im7yHjVUgynElbkoTmWfR4pxj14hYRXchzBvYT5uSSUgkHZbLNbL+GnV3C8WvTr+2ZHJGuUMOm1HK8TJnn2"
        "66omOv0bON4okOkeUCxxfjPHW8S5lM5NWiKmxQ1lmNq4D2+j/NqO1AhP3iH43im8jxVQJeFdefh04idK6gGOB/FuiokNn8L9cmZApsqJCvS9"
        "eJ+E93N8AMfmtPSW4URfp2ii25rJzvamPR3bhRczJLXKKYrqh/BhCR/hGMFHqcflvaUg2A3p+gIJnbf3zXzkw8dJt+1YjQ8PMbAaPx7GpyQc"
        "5ziBk2S0bgyE95u6FjbVYTI2vLNjd1uXuF4YuKWLUw7UG4IL68zGSsT0FMcoMqRaMenSVGbxzlt+lKXxXOvKFYR+UEBfAOE0xxkbCGoOAgSH"
        "HQIkY3iE46xAUWnKuWjl+FCnIccVHx4lVPbbd3mNhMfo1pi/AWdvA+pGfpzHZ0WF7vTj8/iChC9yfAkXCRyLbt9UUtnb0MHUYtTa90wAj3N8"
        "BV8VzojETb9m2LNYOfNf2OvaDT2lm0rCxqZJIP46viHhmxzfwrcZgotlpORa2U1lwerw47v4noQnOL4vbqyKAqOQ6NnilNQE8Q85fmQ3p/5k"
        "2hz04yh+wvFTkfGipKINWIOi2f5cZOUX1C6oyrsEza84fo3f0EBh6dFB2bD1i9ehvVFB/1vRxX8nunh0/i7uwx9Iya3p9ddsPOTHn/BnCX8R"
        "49df88av7KQoGmReh8lNkMKav3P8A/8kYZSeYZlK94YCwN+7qDoilzo6m6K7bm/u6RSdg1EQS6I0CVHyrWyFLulQBzTZShu0XzdrBNkyV2Rj"
        "ZLq9TY8qsYJTaqiLohjVEyR5a3AxoucX43NwnEw6aeslP+wKpQ7XKYqbps3th+KKM1xLzMWwNj+6hpFOWUpiiki0JppMo1PzeOdie/aWBR7m"
        "u9MYkRiB0bWXBrgympEt0zLkVKtiDeoJs7SILfEzPyuWGOeshC1luHJahqod0IfoApCH+xIyccj9cpyuR4Jl8fDM0+Mzrc4yOQpulrUElda6"
        "Fl0fyp8FsvbNx9h5OKX8fy8dlQvzhua+jcrJZAfNDpEyFJVKbBl1f1bOmVsUMo9pmmJEk7JpijaxNL+BSIy+qdYvKgASW5mHiUKkVHMOMWro"
        "AnLRmCVhFf6Ff4PhKTq5kKKPO/qQo/PT9vk/dKYPNtqXi29Key3PrvQNZK80v9NaRD8vLhHPf2mXorMY4xK1Y2C1ZyD1jGHJKPzT27LaulFU"
        "1DaMoooeBnrYas841ozhqlFsqD2FDadQW/7ccVyTwabsMYMt3bXZ/SncOIptteXbx7DjhJgZs/Zepr/P4NmsFSfJPzFR3ncGu0hra6u7cU2A"
        "eCsm0MYwjs5j2HoGvT2s9jRuBd2c+4iqrzyegbImAzWD5HKkxmBs9tRXeyaQdqG72pPB4SNuNjI5Xj+BlzG0NUzgbob7sYI2r2J4FL2bPYLq"
        "NSOTT5Kusgxe/wAkzwg87ofIFoZJ+rsSRc/AL2E3u4Sdl1Ek4Z5LCJTcyJgzADPauARCiF548gTc9A94mCT6M3jTlmk3juHB2pzlbyXLA47l"
        "FBgRrIrABN7uIquOjuH+1pN4T94zcuGDbnRP8X8sy1/+CdrUj+OT4/g07RxxI7i61XFoors+g89McZ3L15q1cGTythNkfT1N03fS9OH4XQbP"
        "ZfjYU0hLGLvqEsR/itBkmc3XAPko8tVwBud76sZwQejbRro+J9Le0/aYWOj45VP4WsOF45s9DReqPeeIeSXWYwMxbkCtveaCzCbp6JFQLOGo"
        "hPMSkTJS7ICFeehIX4rZEO+lk4DsFaSkqqdV6Kqqy+A7Ys3gB/UXRuBrq7/QcO4EEUokPEDEAay115xC1yQd3TmFjrZLJNYnZr2sonspq6Ja"
        "bhHxI1T/eAw/a6H1l631ZxvdmzyVnjXHsKm+0rNxk7fSW3bXMZTUVXozeLJ7BNV15b/3PAJXj7vSO44/dozjbxT87iMeAuRFsjZ5fMqYtfBM"
        "ogpe25J9EvMKbF3GakJc5dMUZhfZBnCCmg9uVsrK6FdhF7SLxp0AWw4Pq2RVrBrV/wMye0kc"
    ),
    "edu/anu/spice/LmdbTupleDB.class": (
        "eNq9VFtP02AYfr51o2wrg3GuJ5wHbDlYQFRkEx1o1GSgccuM3n2UOoq1W7rW6E/wJ/gLvAW9IEhivPLCxD9k4uFtN9mBxeANWdavew/P+7zP"
        "++399uvTZwDzWI4hBEFEWEIEXQx9W/wV1yxul7SH61uG7jJ0ZUzbdJcYBEUtRtGNqIiYhDgkBtnY8DRue1q1YuqGlnu5sV7wKpZxZ5nyHmUf"
        "5+/mGXpzAajnmpa2yivpOBLoFdEnIYl+hp4WL5UpGVR1XMm1U0mrh00iBhkGGghZx+FvcmbVFTHMkGw47vPqJsHHMAQhDhknRJyUcAqnGRKN"
        "KD+Todt0DYe7ZYdhWFGb2D+o26mFMZwVkZJwDucZ+g+HMIibvLpmvHYD4Z75GRcljOMSQ9gOzINKx4bUlinkXce0S75kkxKmME1oFY+SFzro"
        "cyTFfChNwgxmaUQElbUsakBpm5FaFHGFptCw6mVb9xzHsF1t5eD1QNU5CAzRvFmyues5BoPeCpjJtbeUznWYWuYfxubcpeDDMKQc9qlFUnil"
        "vEEk1E7uTiUIqnDU2P/hSJeLbnPB4XaV665ZthlSzVIHtdU27ekvkXe5/oLeC3zdoj7etud0LKcei+QJujMtDT1XjqGuP9TujG4Fqwgp2kIh"
        "2l8Mo/4eovMq/QrhGi0xRt/r9FwgS5JOPy4ysQu2AwQpSdwgo++W6fTdPR8gTu6hJ4QvGNgOwmp4ixSeRqYevgkBXXTe28fQ012MrFLOKMPa"
        "9B7OMLzDDL1cYIShLIYJUQ7/hVyMyJGvSEzJYTmyhwkBT97//j61HbC5Sc9eCD/9jZgQMTb3g6rVqi+R+xZm69WH62RjNbKXQ9hpYnqbFMkS"
        "u1rfI0EkEN/HHDGd/wixFow/kFSUGQ=="
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
