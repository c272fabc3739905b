"""The page, in gradio, which gives each of its three verbs to HTTP too: find, same, delete."""

import os
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: it calls nobody
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

from reid_kit.errors import InputError, shortened
from reid_kit.web.desk import TOP, Desk
from reid_kit.web.tiles import found_html, same_html
from reid_kit.web.uploads import read_uploads, uploaded

LISTED = 1000  # cameras or identities in a menu; others can be typed
KEPT = 3600  # seconds that an upload stays on the disk
NOTICE = """**Use it responsibly.** Searching for people in pictures can trace persons who never agreed to it. Search
where the law allows it, where those who are filmed know of it, and where somebody answers for errors: the nearest
picture is a hint, not an identification. Every search is logged: who, when, the picture's hash, what was shown."""


def build_page(desk: Desk, folder: Path) -> gr.Blocks:
    """The page of a desk; uploads lie below `folder`."""

    def find(files, camera, identity, threshold, top, pool, request: gr.Request):
        with answering():
            uploads = read_uploads(files, folder)
            about = {"camera": camera or (), "identity": identity or (), "threshold": threshold_of(threshold)}
            return desk.find(uploads, who(request), **about, top=int(top or 0), pool=bool(pool)), uploads

    def find_shown(files, camera, identity, threshold, top, pool, request: gr.Request):
        answer, uploads = find(files, camera, identity, threshold, top, pool, request)
        labels, keys = [], {}
        for number, query in enumerate(answer["queries"], 1):
            for rank, row in enumerate(query["matches"], 1):
                labels.append(f"{number}.{rank} {row['identity'] or row['image']} {row['camera']}".strip())
                keys[labels[-1]] = row["image"], row["box"]
        return found_html(answer, uploads), keys, gr.Dropdown(labels, value=None)

    def find_api(files, camera, identity, threshold, top, pool, request: gr.Request):
        return find(files, camera, identity, threshold, top, pool, request)[0]

    def same(first, second, threshold, request: gr.Request):
        with answering():
            uploads = read_uploads([file for file in (first, second) if file], folder)
            return desk.same(uploads, who(request), threshold_of(threshold)), uploads

    def same_shown(first, second, threshold, request: gr.Request):
        return same_html(*same(first, second, threshold, request))

    def same_api(first, second, threshold, request: gr.Request):
        return same(first, second, threshold, request)[0]

    def delete(image, box, request: gr.Request):
        with answering():
            return desk.delete(image or "", box or "", who(request))

    def delete_shown(label, keys, files, camera, identity, threshold, top, pool, request: gr.Request):
        if not label:
            raise gr.Error("choose the entry to delete first", print_exception=False)
        delete(*keys[label], request)
        gr.Info("deleted from the gallery; its file was left alone")
        return find_shown(files, camera, identity, threshold, top, pool, request)

    def menus():
        gallery = desk.gallery
        return (
            f"**{gallery.count():,} entries** in `{gallery.address}`",
            gr.Dropdown(gallery.names("camera")[:LISTED]),
            gr.Dropdown(gallery.names("identity")[:LISTED]),
        )

    points = sorted(desk.gallery.description.thresholds, key=lambda point: point.threshold)
    rates = {
        f"{point.false_match_rate:.2g} false matches · {100 * point.true_match_rate:.0f} % found": point.threshold
        for point in points
    }
    start = desk.threshold()

    def threshold_inputs():  # text, as gradio's Number shows and sends 0 where it was given None
        text = "" if start is None else f"{start:.4f}"
        field = gr.Textbox(text, label="Threshold on the distance", info="empty: only ranked")
        if rates:
            choice = gr.Dropdown(list(rates), value=None, label="… or by its rates", info="measured, per pair")
            choice.input(lambda name: f"{rates[name]:.4f}", choice, field, api_visibility="private", queue=False)
        return field

    with gr.Blocks(title="reid_kit", analytics_enabled=False, delete_cache=(600, KEPT)) as page:
        gr.Markdown("# reid_kit: search a gallery")
        holds = gr.Markdown()
        with gr.Tab("Find in gallery"):
            with gr.Row():
                with gr.Column(scale=1, min_width=280):
                    files = upload("Pictures to search for", folder, "multiple")
                    pool = gr.Checkbox(label="All of them show one person or product")
                    threshold = threshold_inputs()
                    camera = gr.Dropdown([], multiselect=True, allow_custom_value=True, label="Only of cameras")
                    identity = gr.Dropdown([], multiselect=True, allow_custom_value=True, label="Only of identities")
                    top = gr.Slider(1, TOP, 10, step=1, label="Entries to show")
                    search = gr.Button("Search", variant="primary")
                with gr.Column(scale=3):
                    shown = gr.HTML("<p>Drop a picture on the left.</p>")
                    with gr.Row(equal_height=True):
                        entry = gr.Dropdown([], label="Delete an entry, by its number", scale=3)
                        remove = gr.Button("Delete it from the gallery", variant="stop", scale=1)
            keys = gr.State({})
            asked = [files, camera, identity, threshold, top, pool]
            outcome = [shown, keys, entry]
            gr.on([files.upload, search.click], find_shown, asked, outcome, api_visibility="private")
            remove.click(delete_shown, [entry, keys, *asked], outcome, api_visibility="private").success(
                menus, None, [holds, camera, identity], api_visibility="private"
            )
        with gr.Tab("Same or not"):
            with gr.Row():
                first, second = upload("First picture", folder), upload("Second picture", folder)
                with gr.Column(min_width=240):
                    limit = threshold_inputs()
                    compare = gr.Button("Compare", variant="primary")
            verdict = gr.HTML()
            compare.click(same_shown, [first, second, limit], verdict, api_visibility="private")
        gr.Markdown(NOTICE)
        with gr.Row(visible=False):  # what HTTP gives and gets
            answer, image, box, button = gr.JSON(), gr.Textbox(label="image"), gr.Textbox(label="box"), gr.Button()
        button.click(find_api, asked, answer, api_name="find")
        button.click(same_api, [first, second, limit], answer, api_name="same")
        button.click(delete, [image, box], answer, api_name="delete")
        page.load(menus, None, [holds, camera, identity], api_visibility="private")
    return page.queue(max_size=1000, default_concurrency_limit=4)


def threshold_of(text: str | float | None) -> float | None:
    """What stands in the field, or came over HTTP; None where it is empty.

    Raises:
        InputError: it is no number.
    """
    try:
        return None if text in (None, "") else float(text)
    except (TypeError, ValueError) as error:
        raise InputError(f"threshold {shortened(text)}; expected a number, or nothing to rank alone") from error


def upload(label: str, folder: Path, count: str = "single") -> gr.File:
    """Files that the sender uploaded: gradio would take the server's own, and fetch addresses."""
    field = gr.File(label=label, file_count=count, height=150)
    move = field.async_move_resource_to_block_cache

    async def move_uploaded(place):
        with answering():
            uploaded(place, folder)
        return await move(place)

    field.async_move_resource_to_block_cache = move_uploaded
    return field


def who(request: gr.Request) -> str:
    """The user's name, or the address where there are no users."""
    return request.username or (request.client.host if request.client else "unknown")


class answering:
    """Turns an InputError into one line on the page."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, InputError):
            raise gr.Error(str(error), print_exception=False) from error
