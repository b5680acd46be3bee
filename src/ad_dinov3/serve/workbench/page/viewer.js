// --- the open image: pan, zoom, the map above it

const colourTables = JSON.parse(byId("data").textContent);
const STRONGEST = 0.75; // opacity of the value 1, as in the overlay files
const LARGEST_SCALE = 40;

const viewer = {
  canvas: byId("canvas"),
  photo: null, // ImageBitmap
  size: { width: 1, height: 1 }, // of the image, in px
  judged: null, // the same, below every threshold where it is not looked at
  map: null, // { width, height, values } with values in [0, 1]
  picture: null, // the map in colours, a canvas
  similar: null, picked: null, // a map to show in its place, and the patch (row, column) that it is of
  regions: [],
  scale: 1, x: 0, y: 0, // the image's upper left corner on the canvas, in CSS px
  opacity: 1, colours: "cool", showMap: true, before: false,

  show(photo, map, size) {
    this.similar = null;
    this.photo?.close?.();
    this.photo = photo;
    this.map = map;
    this.size = size;
    this.judge();
    this.fit();
  },

  // how alike patches are to one of them, in the place of the map; null: the map again
  liken(similar, picked = null) {
    this.similar = similar;
    this.picked = picked;
    this.colour();
    this.draw();
  },

  // another map of the same image
  compare(map) {
    this.map = map;
    this.judge();
  },

  // what of the map is looked at
  judge() {
    this.judged = this.map && judged(this.map, bench.state.areas);
    this.colour();
    this.draw();
  },

  colour() {
    if (!this.map) {
      this.picture = null;
      return;
    }
    const { width, height, values } = this.similar ?? this.judged, table = colourTables[this.colours];
    this.picture = new OffscreenCanvas(width, height);
    const context = this.picture.getContext("2d"), image = context.createImageData(width, height);
    for (let at = 0, to = 0; at < values.length; at++, to += 4) {
      const level = Math.max(0, Math.round(values[at] * 255)), [red, green, blue] = table[level];
      image.data[to] = red;
      image.data[to + 1] = green;
      image.data[to + 2] = blue;
      image.data[to + 3] = STRONGEST * level;
    }
    context.putImageData(image, 0, 0);
  },

  outline(regions) {
    this.regions = regions;
    this.draw();
  },

  fit() {
    const { clientWidth, clientHeight } = this.canvas;
    this.scale = Math.min(clientWidth / this.size.width, clientHeight / this.size.height);
    this.x = (clientWidth - this.size.width * this.scale) / 2;
    this.y = (clientHeight - this.size.height * this.scale) / 2;
    this.fitted = this.scale;
    this.draw();
  },

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const scale = Math.min(LARGEST_SCALE, Math.max(this.fitted / 4, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.draw();
  },

  pan(x, y) {
    this.x += x;
    this.y += y;
    this.draw();
  },

  // a point of the canvas in px of the image
  at(x, y) { return [(x - this.x) / this.scale, (y - this.y) / this.scale]; },

  draw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.paint();
    });
  },

  paint() {
    const { canvas, size } = this, ratio = devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.setTransform(ratio * this.scale, 0, 0, ratio * this.scale, ratio * this.x, ratio * this.y);
    context.imageSmoothingEnabled = this.scale < 3; // pixels are what people want to see from here on
    if (this.photo) context.drawImage(this.photo, 0, 0, size.width, size.height);
    if (this.showMap && this.map) {
      context.imageSmoothingEnabled = true;
      context.globalAlpha = this.opacity;
      context.drawImage(this.picture, 0, 0, size.width, size.height);
      context.globalAlpha = 1;
      if (this.similar) this.paintPicked(context);
      else this.paintOutlines(context);
    }
    paintAreas(context);
  },

  paintPicked(context) {
    const across = this.size.width / this.similar.width, down = this.size.height / this.similar.height, [row, column] = this.picked, path = new Path2D();
    path.rect(column * across, row * down, across, down);
    this.line(context, path);
  },

  paintOutlines(context) {
    const across = this.size.width / this.map.width, down = this.size.height / this.map.height, path = new Path2D();
    for (const { outline } of this.regions) {
      outline.forEach(([x, y], index) => (index ? path.lineTo(x * across, y * down) : path.moveTo(x * across, y * down)));
      path.closePath();
    }
    this.line(context, path);
  },

  line(context, path) {
    for (const [colour, width] of [["black", 4.5], ["white", 2]]) { // a dark rim keeps the line visible on white parts
      context.strokeStyle = colour;
      context.lineWidth = width / this.scale;
      context.lineJoin = "round";
      context.stroke(path);
    }
  },
};

// what is shown of the open image: as it is judged now, as it was before, or as words that are tried would have it
const shownAs = () => (trial && !viewer.before ? "tried" : viewer.before && !trial ? "before" : "now");

async function readMap(name) {
  if (shownAs() === "tried") return trial.map;
  return decodeMap(await (await ask(about("map", name, shownAs() === "before" ? "&before=true" : ""))).arrayBuffer());
}

function decodeMap(content) {
  const [height, width] = new Uint32Array(content, 0, 2);
  const levels = new Uint16Array(content, 8), values = new Float32Array(levels.length);
  for (let at = 0; at < levels.length; at++) values[at] = levels[at] / 65535;
  return { width, height, values };
}

// the photograph, or the small one that the run kept where the file is gone
async function readPhoto(name) {
  try {
    return await createImageBitmap(await (await ask(about("photo", name))).blob());
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tell(`${error.message}. The small picture is shown.`);
    return createImageBitmap(await (await ask(about("thumbnail", name, "&with_map=false"))).blob());
  }
}

const fingers = new Map(); // pointers that are down, by id
viewer.canvas.addEventListener("pointerdown", (event) => {
  viewer.canvas.focus({ preventScroll: true }); // what is pointed at stays where it is
  viewer.canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
});
viewer.canvas.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = [event.offsetX, event.offsetY], other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  fingers.set(event.pointerId, now);
  if (!other) viewer.pan(now[0] - before[0], now[1] - before[1]);
  else viewer.zoom(Math.hypot(now[0] - other[0], now[1] - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1])), ...other);
});
for (const name of ["pointerup", "pointercancel"]) viewer.canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
viewer.canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  viewer.zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
}, { passive: false });
new ResizeObserver(() => (Math.abs(viewer.scale - viewer.fitted) < 1e-9 ? viewer.fit() : viewer.draw())).observe(viewer.canvas);

byId("zoom-in").addEventListener("click", () => viewer.zoom(1.5));
byId("zoom-out").addEventListener("click", () => viewer.zoom(1 / 1.5));
byId("fit").addEventListener("click", () => viewer.fit());
byId("actual").addEventListener("click", () => viewer.zoom(Math.max(1, (viewer.photo?.width ?? 1) / viewer.size.width) / viewer.scale)); // of the file's pixels, not of a reduced image's;
byId("opacity").addEventListener("input", (event) => { viewer.opacity = Number(event.target.value); viewer.draw(); });
byId("colours").addEventListener("change", (event) => { viewer.colours = event.target.value; viewer.colour(); viewer.draw(); rampColours(); });

function rampColours() {
  const stops = colourTables[viewer.colours].filter((_, index) => index % 15 === 0).map((colour) => `rgb(${colour.join(" ")})`);
  document.documentElement.style.setProperty("--ramp", `linear-gradient(90deg, ${stops})`);
}
rampColours();
