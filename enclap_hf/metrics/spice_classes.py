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
        "eNqdWAt4U1cd/53mcZrktECgtAHGKIORlmSZyCY2iLaljEDaIumKZSpektv2luQm5t4AVXy7TedrOhXZFN/Wt1BHWqjbUOd0E98634/Nie/3"
        "Y2NO6v/cpG3Spnx84/vIveec3/mf3/95/rcPXTxzL4CNbK0bVbBx2AUccDIsHFIOKqGkog+EuvcPqXGTwblZ0zVzC4PN39TLUV0G6hnMqkrC"
        "S7LcAh4IQmVzOsNSf1N0BrU7p+vK/qQadoOjVh61gKHeXwnR1CsxiwS8WMzgMlRzq6Km0iTS7t9bWKwTWCq5OgxTyZocDQyLLUlaOrQrq+lm"
        "zCRSKY5lDA1TC9u0pNqdMzO54qoLK3AFx0qBK7GK+JbitqpGPKtlzHSW1EnnyAYN0crrpJAPq6VCVzEs98+HkrzrsVbirmbwzeBKGRHKBT+a"
        "OJoF1iNQZufYsGGqKaKjZolUXbSCvsTFj2sEQriWnEaG67aY+ytiJaMNeCbHRoHrcD2RUhO5kKLnQkZGi6uhmPyVTlHpOCF93K5kTC2tGwxr"
        "Sh1H8jR9IFz0ds7UkqGoZphEZhOezdEiEMZmhkUzOyK6qQ5IsdUZJWuoNCSFKomMeLAFz+V4nkAr2hhqy49g4JrRkcqYw1Zo7uXYSj4oV6NI"
        "epc8KOtGO7ZJH9zA0OSfTTgyr53aERHYgZ1TjFuTSRmNEXlkJ8XxbOZtOS2ZkMdFYavGLuJpxNNZ1VglZ3YLxNBDDlIyGVVPMATnt+ZcmWHp"
        "tV6BPXiBjH8plmFdBQmRuSLCUpO9AjfhhXQ8BaeSoc1XX9bxYUn9xQL78BKygpkuzDIs8VfE1mO/QBykHc9IYyb1eVzcW41+EpjTLVUScueg"
        "gGZld38yZwxyHJjK7ql6kz4kC4UbQ0gJ6BK6IFPwmBI/0JNV4rSWwUs5sgIGzLLYo4g2tRSp7R5QzelB3exiJafDUspBgUM4TN4eVJJmwelU"
        "Al82RcmKntZsVhmWIeTGsCylryhPXEtTN16FV3O8RuC1eN3Ubp1irZ8KRWiXYg5SXtmIE0O4gp1umtdHZTLCLtyMWzhuFXgD3sjQOA2JD8rA"
        "NWmzoieUbKK9MKZDHTf2bNu3iWFZdA64CCJDvAlv5niLwFvxtjnkZakjOYt09VBbrr9fJTfupnIhE3y7vxLJ+Q9qmk7BcklhjreTNunsQGjI"
        "SOshQ0tlSJqVjNnQjlh311SC3w6b/HmnwLvwblLOgsxULJJclFjq8MJFR4e8h8ww+xApvQCoxp2UN5ZECtSjeK905vtmZVBRVkXx76cqW0m8"
        "FUBuHMcHBT6ED1M+aKaaVazrZ/oetUItUpwPe/BRfIxjRODjsjJ650Io9QYVo0s9bErsJwU+hU9TAOs0MTttiwQlg89KnT4nMyJSETGMkwKj"
        "+DwFq5JIzErqKd33unAKeY4xgXGcnnO1RFOJ/T05Un4rMXfuat0d64hRDpeo2alkSMMJfIHjHoF7cR9DTdkqHZ+Rl9umCsdfljOq8UWr7BS8"
        "Ke+Zk27cj69wPCDwVVlTassDhmIpnkwbVtl5UOAhfJ04kQliuUyGSjsJmblqywtVWFaMbzCsqHDBtmYHcilVNw03zsHmop9vC3wH36XGR9NJ"
        "Q5kv5N252S+h3xf4AR6mUqbnUoU2jNKQRarxIzJrinqm7LCE/UTgp1KiI67EB4n/z/ELjl8K/AqPlJXGtnQ6qSpUqPlBJZlTu/tl8O0ttV0R"
        "YR3+a4HH8BvZZ1Beyxt8cQUgx28rNxYxWe0pXc/LdD2PPwj8EX8iTaxboE0x46R1oz96KYtZ3dJ5/EXgr/hboReU5WxZpU0xuUbR+w/8k+Nf"
        "Av+Wt1jDfEDqd8y0zMuCrWVP9rjAE7jAUKXppc1XRJ9p3tz4L57i+J/ARUyWNKQlGEo/6SWrW4lwxkpR3R2H46rVq5BNt7VGoh3UzNS0U79F"
        "FdvslR6xUZNNe2opYzq6evZFYvtu6O7qkLN2ktyeTlChs6cUzeq+K90YvSTRuiQpg3pkaHJG/friClByxTQfg7MFZVdwCVNXTBvQFTMnu5BN"
        "l9EVbp4L2UKH1VAjtEczB6mKW7G0kALINMyskulUzcF0wljgZHVutpTVc9YgmI9RY796RpKmH0wfoLqipPYnFNqh9CtxqoDUFnpSpaNzpQyL"
        "mwoHbKdbkW6xNdF0+kAuE57Lcr6NPcMZ9ektFo689N6muavtSjIZo+shvBBOssoV1A+ylYJ5ZckSEdmutycVKkfktUaGtZelL2f08bLy0lCK"
        "ygIYjdSBVlHQVdHnVRUeppCUIVjF7DR2lIyd1Ggz+VFJM5xmFtGI0dPRPAZ2EvKfi1UzV3H5MYI66Hl8ArzvDFzAGGqi6+15LFyfx5IJ1PdN"
        "wNc3iuVjaBzDms5RrBtHsNm+YRzP6Gp20ONZ19uDp/EchjuxdALtfcE6e2AMHXUkY/sxrAtMINo3hi5vdx7Pb7ZtqLOP48Zx9NEojxfloYzA"
        "FfCq9BLIY2AEC7qCeSTHkab9OXrY6HGSVLgGt+I2ugYYcxPfAByT6IODMw8H56jnoE9lXEWzTuoGp2ZBSg554JYfW7BJjdmDsKGGno0TGCZe"
        "L4822+7BkXG8chSvH8dtnRO4nabfQWTuOIujXUHvsTzuOovjeXygxe6zn8ZHGI7hDvn2CYYWh89Biy3OorQW7nMS8c8UN1T7qosbdso3ucE1"
        "hXT7XEWUx+cpopbJN4kSPrdPnMWRPE7sGZl81Md97sLryVHc7XParCOO+PhpnLGBprWg92wlnsunea6XRI+cxpeqJP6RwANYRTp+eQS+Lnr3"
        "Ft49Lfagj/h/LXjf+hMUa/W4SKEyxGqZl9VNG/8WiElsJOPjCJmd436Oo5zaHUziWrhmzXJUcRznGLYQF7HWmpCjJ7HqCbgnsRT20j3AU6ih"
        "5Qto3EHem4SnbH3I8im/QFxqZBGmZy1baMX+InI0faLRmwztVuJvp+d1EzhHBv9mZ6D5FL4VWH4K3wt4f3gKPw5QJP7sFB6dwHla/11XkGzw"
        "++Dd+HMefz8hE2XmALhlrhdzJkyCZUo1jOI/eTx5F5wjk4+PwL6TopUXoxUQ8o8tRYO5SIqnjTOL5WJrkbElFJDL2Qr6f6X8Ow7NrGKr2Rr4"
        "/g+cAwpG"
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
