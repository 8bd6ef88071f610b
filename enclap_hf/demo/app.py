"""The page: Gradio's components and what happens when they are used. Nothing here reaches for the internet."""

import os
import tempfile
from pathlib import Path

import gradio as gr
import soundfile

from ..sound_scenes import EXAMPLE_SCENES, make_example_scene
from .captioning import Description, describe_recording, format_error, format_notice, load_captioner

HEADER = '<div class="enclap-header"><h1>What do you hear?</h1><p>EnCLAP writes one sentence about a sound.</p></div>'
PLACEHOLDER = '<div class="enclap-placeholder">The caption will appear here.</div>'
MAX_FILE_SIZE = "50mb"
# Uploads are deleted when they are this old, and looked for as often.
DELETE_UPLOADS_AFTER_S = 3600
# The sliders end here, or at the model's own number of beams where that is higher.
MOST_BEAMS = MOST_CAPTIONS = 8


class DemoPage:
    """The page and the model behind it.

    Args:
        model: directory or Hub repository; None for the bundled model.
        choose_model: whether visitors may name another model. For a page that only its owner can reach: whatever they
            name is downloaded and loaded.
        backend: what computes: "torch", "onnx" or "onnx-int8".
    Raises:
        ValueError: there is no such model.
    """

    def __init__(self, model: str | None = None, choose_model: bool = False, backend: str = "torch"):
        self.model, self.backend = model or None, backend
        self.choose_model = choose_model
        self.captioner = load_captioner(self.model, backend)

    def caption(self, path: str | None, num_beams: float, num_captions: float, model: str | None = None):
        """What the button does: HTML of captions, pictures and notice, and the sound of a long recording."""
        try:
            self.use_model((model or "").strip() or None if self.choose_model else self.model)
        except ValueError as error:
            description = Description(format_error(str(error)), "")
        else:
            description = describe_recording(self.captioner, path, int(num_beams), int(num_captions))
        notice = format_notice(self.model, "SPACE_ID" in os.environ)
        return description.captions, description.picture, notice, description.heard

    def use_model(self, model: str | None) -> None:
        """Load another model, unless it is the current one."""
        if model != self.model:
            self.captioner = load_captioner(model, self.backend)
            self.model = model

    def build(self) -> gr.Blocks:
        """Lay the page out: what is heard on the left, what is said about it on the right; on a phone one column."""
        with gr.Blocks(
            title="EnCLAP audio captioning",
            analytics_enabled=False,
            delete_cache=(DELETE_UPLOADS_AFTER_S, DELETE_UPLOADS_AFTER_S),
        ) as page:
            gr.HTML(HEADER)
            notice = gr.HTML(format_notice(self.model, "SPACE_ID" in os.environ))
            with gr.Row(equal_height=False):
                with gr.Column(min_width=320):
                    recording = gr.Audio(
                        sources=["upload", "microphone"], type="filepath", label="Sound", elem_id="enclap-sound"
                    )
                    examples = self.add_examples(recording)
                    num_beams, num_captions, model = self.add_settings()
                    button = gr.Button("Write the caption", variant="primary", size="lg", elem_id="enclap-button")
                with gr.Column(min_width=320):
                    captions = gr.HTML(PLACEHOLDER, elem_id="enclap-captions")
                    picture = gr.HTML(elem_id="enclap-pictures")
            heard = gr.Audio(visible=False, format="wav", label="Recording as it was captioned")
            inputs = [recording, num_beams, num_captions, model]
            outputs = [captions, picture, notice, heard]
            asked = button.click(self.caption, inputs, outputs, api_name="caption")
            picked = examples.load_input_event.then(self.caption, inputs, outputs, api_visibility="private")
            for event in (asked, picked):
                event.then(None, heard, None, js="(heard) => window.enclapShowResult(heard)")
        return page

    def add_examples(self, recording: gr.Audio) -> gr.Examples:
        """Buttons that put a synthesised scene into the sound field."""
        folder = Path(tempfile.mkdtemp(prefix="enclap-examples-"))
        paths = []
        for name in EXAMPLE_SCENES:
            scene = make_example_scene(name)
            paths.append(str(folder / f"{name}.flac"))
            soundfile.write(paths[-1], scene.audio, scene.sampling_rate)
        labels = [name.replace("_", " ") for name in EXAMPLE_SCENES]
        return gr.Examples([[path] for path in paths], [recording], label="Examples", example_labels=labels)

    def add_settings(self) -> tuple[gr.Slider, gr.Slider, gr.Textbox]:
        """The search's settings, closed at first."""
        default_beams = self.captioner.model.generation_config.num_beams or 1
        with gr.Accordion("Settings", open=False):
            num_captions = gr.Slider(
                1,
                MOST_CAPTIONS,
                value=3,
                step=1,
                label="Captions",
                info="How many to show, best first; of a long recording, the best of each stretch.",
            )
            num_beams = gr.Slider(
                1,
                max(MOST_BEAMS, default_beams),
                value=default_beams,
                step=1,
                label="Beams",
                info="More beams search longer for a better caption.",
            )
            model = gr.Textbox(
                self.model or "",
                label="Model",
                info="Hub repository or folder; empty for the bundled small model.",
                visible=self.choose_model,
            )
        return num_beams, num_captions, model


def make_theme() -> gr.themes.Base:
    """Colours that stand out from their ground (4.5 to 1 and more), and fonts of the visitor's own system.

    Gradio's themes would fetch their fonts from the internet.
    """
    theme = gr.themes.Soft(
        primary_hue="teal",
        neutral_hue="slate",
        radius_size="lg",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return theme.set(
        color_accent="*primary_700",
        body_background_fill="*neutral_50",
        block_border_width="1px",
        input_border_width="1px",
        input_border_color="*neutral_400",
        input_border_color_dark="*neutral_500",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*primary_800",
        block_title_text_color="*primary_800",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
    )


def launch_demo(
    model: str | None = None,
    *,
    choose_model: bool = False,
    port: int | None = None,
    share: bool = False,
    backend: str = "torch",
    **options,
):
    """Start the page and serve it until interrupted.

    Args:
        model: directory or Hub repository; None for the bundled model.
        choose_model: whether visitors may name another model, see [`DemoPage`].
        port: of the local address; None takes a free one from 7860 on.
        backend: what computes: "torch", "onnx" or "onnx-int8".
        share: also give the page a public address for some days, through Gradio's servers.
        options: further arguments of Gradio's `launch`.
    Raises:
        ValueError: there is no such model.
        OSError: the port is taken.
    """
    page = DemoPage(model, choose_model, backend).build()
    return page.launch(
        server_port=port,
        share=share,
        max_file_size=MAX_FILE_SIZE,
        theme=make_theme(),
        css_paths=Path(__file__).with_name("page.css"),
        head=f"<script>{Path(__file__).with_name('page.js').read_text(encoding='utf-8')}</script>",
        footer_links=["api", "gradio"],
        ssr_mode=False,
        **options,
    )
