// --- areas: polygons to inspect and to ignore, in shares of width and height

const KINDS = { ignore: "Ignored", inspect: "Inspected" };
const area = { drawing: null, editing: null }; // { kind, corners }, { kind, index }

// pixels of a map whose centre has an odd number of edges to its left, as in Python (infer/areas.py)
function insideAny(polygons, width, height) {
  const inside = new Uint8Array(width * height);
  for (const polygon of polygons) {
    const turns = new Uint8Array((width + 1) * height);
    polygon.forEach(([x0, y0], index) => {
      const [x1, y1] = polygon[(index + 1) % polygon.length], [fromX, fromY, toX, toY] = [x0 * width, y0 * height, x1 * width, y1 * height];
      for (let row = 0; row < height; row++) {
        const centre = row + 0.5;
        if (fromY <= centre === toY <= centre) continue;
        const crossing = fromX + ((centre - fromY) * (toX - fromX)) / (toY - fromY);
        turns[row * (width + 1) + Math.min(Math.max(Math.ceil(crossing - 0.5), 0), width)] ^= 1;
      }
    });
    for (let row = 0; row < height; row++) {
      for (let column = 0, odd = 0; column < width; column++) {
        odd ^= turns[row * (width + 1) + column];
        inside[row * width + column] |= odd;
      }
    }
  }
  return inside;
}

// the map where it is looked at, and below every threshold elsewhere
function judged(map, { inspect, ignore }) {
  if (!inspect.length && !ignore.length) return map;
  const { width, height } = map, values = Float32Array.from(map.values);
  const looked = inspect.length ? insideAny(inspect, width, height) : null, not = insideAny(ignore, width, height);
  for (let at = 0; at < values.length; at++) if (not[at] || (looked && !looked[at])) values[at] = -1;
  return { width, height, values };
}

function pathOf(polygons, { width, height }, path = new Path2D(), close = true) {
  for (const polygon of polygons) {
    polygon.forEach(([x, y], index) => (index ? path.lineTo(x * width, y * height) : path.moveTo(x * width, y * height)));
    if (close) path.closePath();
  }
  return path;
}

function paintAreas(context) {
  const { inspect, ignore } = bench.state.areas, { size, scale } = viewer;
  context.fillStyle = "rgb(0 0 0 / .45)";
  context.fill(pathOf(ignore, size));
  if (inspect.length) {
    const outside = new Path2D();
    outside.rect(0, 0, size.width, size.height);
    context.fill(pathOf(inspect, size, outside), "evenodd");
  }
  const lines = [[pathOf(ignore, size), true], [pathOf(inspect, size), false]];
  if (area.drawing) lines.push([pathOf([area.drawing.corners], size, new Path2D(), false), false]);
  for (const [path, dashed] of lines) {
    for (const [colour, width] of [["black", 4], ["white", 1.8]]) {
      context.setLineDash(dashed && colour === "white" ? [7 / scale, 5 / scale] : []);
      context.strokeStyle = colour;
      context.lineWidth = width / scale;
      context.stroke(path);
    }
  }
  context.setLineDash([]);
  placeHandles();
}

// --- drawing: corners by clicks, then Done; Done before the third corner makes a rectangle in the middle of the view

function draw(kind) {
  area.drawing = { kind, corners: [] };
  area.editing = null;
  byId("area-hint").textContent = "Click the corners, then Done. Done at once makes a rectangle, whose corners arrow keys move.";
  tellAreas();
  byId("area-done").focus();
}

function addCorner(x, y) {
  const { width, height } = viewer.size, [column, row] = viewer.at(x, y), kept = (share) => Math.min(Math.max(share, 0), 1);
  area.drawing.corners.push([kept(column / width), kept(row / height)]);
  viewer.draw();
}

function finishArea() {
  if (!area.drawing) {
    area.editing = null;
    return tellAreas();
  }
  const { kind, corners } = area.drawing, polygons = bench.state.areas[kind];
  polygons.push(corners.length >= 3 ? corners : [[0.35, 0.35], [0.65, 0.35], [0.65, 0.65], [0.35, 0.65]]);
  area.drawing = null;
  area.editing = { kind, index: polygons.length - 1 };
  saveAreas();
  byId("handles").querySelector("button")?.focus();
}

function cancelArea() {
  area.drawing = area.editing = null;
  tellAreas();
}

function saveAreas() {
  waiting.add("areas", { areas: bench.state.areas }, apply);
  tellAreas();
  judgeOpen();
}

function tellAreas() {
  const busy = area.drawing !== null || area.editing !== null;
  byId("area-done").hidden = !busy;
  byId("area-cancel").hidden = area.drawing === null;
  byId("area-hint").hidden = area.drawing === null;
  byId("area-list").replaceChildren(...Object.keys(KINDS).flatMap((kind) => bench.state.areas[kind].map((polygon, index) => areaLine(kind, index, polygon))));
  makeHandles();
  viewer.draw();
}

function areaLine(kind, index, polygon) {
  const line = document.createElement("li"), name = `${KINDS[kind]} area ${index + 1}`;
  const button = (words, act) => {
    const made = Object.assign(document.createElement("button"), { type: "button", textContent: words });
    made.setAttribute("aria-label", `${words} ${name.toLowerCase()}`);
    made.addEventListener("click", act);
    return made;
  };
  line.append(`${name}, ${polygon.length} corners `, button("Edit", () => { area.editing = { kind, index }; tellAreas(); }),
    button("Delete", () => { bench.state.areas[kind].splice(index, 1); area.editing = null; saveAreas(); }));
  return line;
}

// --- editing: each corner is a button that pointer and arrow keys move

const corners = () => (area.editing ? bench.state.areas[area.editing.kind][area.editing.index] ?? [] : []);

function makeHandles() {
  byId("handles").replaceChildren(...corners().map((_, index) => {
    const handle = Object.assign(document.createElement("button"), { type: "button", className: "handle" });
    handle.addEventListener("keydown", (event) => moveByKey(event, index));
    handle.addEventListener("pointerdown", (event) => { handle.setPointerCapture(event.pointerId); event.stopPropagation(); });
    handle.addEventListener("pointermove", (event) => { if (handle.hasPointerCapture(event.pointerId)) moveTo(index, event); });
    handle.addEventListener("pointerup", saveLater);
    return handle;
  }));
  placeHandles();
}

function placeHandles() {
  const { width, height } = viewer.size;
  [...byId("handles").children].forEach((handle, index) => {
    const [x, y] = corners()[index];
    handle.style.transform = `translate(${viewer.x + x * width * viewer.scale}px, ${viewer.y + y * height * viewer.scale}px) translate(-50%, -50%)`;
    handle.setAttribute("aria-label", `Corner ${index + 1}: ${Math.round(x * width)}, ${Math.round(y * height)} px; arrow keys move it`);
  });
}

function moveTo(index, event) {
  const box = viewer.canvas.getBoundingClientRect(), [x, y] = viewer.at(event.clientX - box.left, event.clientY - box.top);
  corners()[index] = [x / viewer.size.width, y / viewer.size.height].map((share) => Math.min(Math.max(share, 0), 1));
  viewer.draw();
}

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
function moveByKey(event, index) {
  const step = STEPS[event.key];
  if (!step) return;
  event.preventDefault();
  event.stopPropagation();
  const by = event.shiftKey ? 0.05 : 0.01;
  corners()[index] = corners()[index].map((share, axis) => Math.min(Math.max(share + step[axis] * by, 0), 1));
  viewer.draw();
  saveLater();
}

let saving = 0;
function saveLater() {
  clearTimeout(saving);
  saving = setTimeout(() => {
    saving = 0;
    waiting.add("areas", { areas: bench.state.areas }, apply);
    judgeOpen();
  }, 400);
}

byId("ignore-area").addEventListener("click", () => draw("ignore"));
byId("inspect-area").addEventListener("click", () => draw("inspect"));
byId("area-done").addEventListener("click", finishArea);
byId("area-cancel").addEventListener("click", cancelArea);
let pressed = null;
viewer.canvas.addEventListener("pointerdown", (event) => { pressed = [event.offsetX, event.offsetY]; });
const isClick = (event) => pressed !== null && Math.hypot(event.offsetX - pressed[0], event.offsetY - pressed[1]) < 5;
viewer.canvas.addEventListener("pointerup", (event) => {
  if (area.drawing && isClick(event)) addCorner(event.offsetX, event.offsetY);
});
