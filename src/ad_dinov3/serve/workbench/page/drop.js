// --- images that are dropped onto the page, or chosen with the button: kept by the server, and scored there

let dropped = null; // the name of the first one, which is opened once it is scored

async function keepFiles(files) {
  const images = [...files], refused = [];
  for (const [index, file] of images.entries()) {
    byId("dropping").textContent = `Keeping ${index + 1} of ${images.length}: ${file.name}`;
    const form = new FormData();
    form.append("image", file, file.name);
    try {
      const { images: [name] } = await (await ask("drop", { method: "POST", body: form })).json();
      dropped ??= name;
    } catch (error) {
      if (!(error instanceof Refused)) return away();
      refused.push(error.message);
    }
  }
  byId("dropping").textContent = "";
  if (refused.length) tell(refused.join(" · "));
}

function openDropped() {
  if (!dropped || !bench.byName.has(dropped)) return;
  open(dropped);
  dropped = null;
}

if (scores) {
  byId("add").addEventListener("click", () => byId("files").click());
  byId("files").addEventListener("change", (event) => keepFiles(event.target.files).then(() => { event.target.value = ""; }));
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    document.body.classList.remove("over");
    keepFiles(event.dataTransfer.files);
  });
}
