// --- patches: how alike those of the open image are to one of them, and which patch of a good image is nearest

const patches = { on: false, place: null, grid: null, asked: 0 };

const shareOf = ([row, column], [rows, columns]) => [(column + 0.5) / columns, (row + 0.5) / rows];

function comparePatches(wanted) {
  patches.on = wanted;
  byId("patches").setAttribute("aria-pressed", String(wanted));
  viewer.canvas.classList.toggle("pick", wanted);
  if (wanted) return pickPatch(...(patches.place ? shareOf(patches.place, patches.grid) : peakOf(viewer.judged)));
  patches.place = null;
  byId("patch").hidden = true;
  viewer.liken(null);
}

// where a map is highest, in shares of width and height
function peakOf(map) {
  if (!map) return [0.5, 0.5];
  let best = 0;
  for (let at = 1; at < map.values.length; at++) if (map.values[at] > map.values[best]) best = at;
  const x = best % map.width;
  return [(x + 0.5) / map.width, ((best - x) / map.width + 0.5) / map.height];
}

async function pickPatch(x, y) {
  const name = bench.open, turn = ++patches.asked;
  byId("patch").hidden = false;
  if (!patches.place) byId("patch-words").textContent = "Comparing …";
  try {
    const found = await (await ask(about("patch", name, `&x=${x}&y=${y}`))).json();
    if (turn !== patches.asked || bench.open !== name || !patches.on) return;
    Object.assign(patches, { place: found.place, grid: found.grid });
    const least = Math.min(...found.cosines), [height, width] = found.grid;
    viewer.liken({ width, height, values: Float32Array.from(found.cosines, (value) => (value - least) / Math.max(1 - least, 1e-6)) }, found.place);
    tellPatch(found, least);
  } catch (error) {
    if (!(error instanceof Refused)) return away();
    comparePatches(false);
    tell(error.message);
  }
}

function tellPatch({ place, grid, nearest }, least) {
  const [row, column] = place;
  byId("patch-words").textContent = `Patch in row ${row + 1} of ${grid[0]}, column ${column + 1} of ${grid[1]}. The brighter, the more alike: from ${least.toFixed(2)} to 1, the patch itself. ${
    nearest ? `Nearest patch of a good image: ${nearest.image}, ${positionWords([nearest.place[1] + 0.5, nearest.place[0] + 0.5], { width: nearest.grid[1], height: nearest.grid[0] })}, ${nearest.cosine.toFixed(2)} alike.`
      : "No good image is known yet to find the nearest patch in."}`;
  byId("patch-nearest").hidden = !nearest;
  if (nearest) showNearest(nearest);
}

async function showNearest({ image, place, grid }) {
  const photo = await createImageBitmap(await (await ask(about("thumbnail", image, "&with_map=false"))).blob());
  const canvas = byId("patch-nearest"), context = canvas.getContext("2d"), width = photo.width / grid[1], height = photo.height / grid[0];
  Object.assign(canvas, { width: photo.width, height: photo.height });
  canvas.setAttribute("aria-label", `${image}, the nearest patch framed`);
  context.drawImage(photo, 0, 0);
  for (const [colour, line] of [["black", 5], ["white", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(place[1] * width - 2, place[0] * height - 2, width + 4, height + 4);
  }
}

// arrow keys go from patch to patch; true if they did
function movePatch(key) {
  const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
  if (key === "Escape" && patches.on) comparePatches(false);
  if (!move || !patches.on || !patches.place) return false;
  patches.place = patches.place.map((at, axis) => Math.min(Math.max(at + move[axis], 0), patches.grid[axis] - 1));
  pickPatch(...shareOf(patches.place, patches.grid));
  return true;
}

byId("patches")?.addEventListener("click", () => comparePatches(!patches.on));
viewer.canvas.addEventListener("pointerup", (event) => {
  if (!patches.on || area.drawing || !isClick(event)) return;
  const [x, y] = viewer.at(event.offsetX, event.offsetY), { width, height } = viewer.size;
  if (x >= 0 && y >= 0 && x < width && y < height) pickPatch(x / width, y / height);
});
