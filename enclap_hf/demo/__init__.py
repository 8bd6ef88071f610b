"""The demo: captions recordings in the browser. `enclap demo` and the Space in `examples/space/` both start it.

`app.py` builds the page from Gradio's components, `captioning.py` turns a recording into what the page shows,
`timeline.py` shows a long one's captions over time, which `page.js` plays, and `sound_pictures.py` draws the waveform
and the log-mel spectrogram. Only `app.py` needs Gradio.
"""
