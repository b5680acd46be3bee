"use strict";
(() => {
  const { colours, threshold: start, scores, bins } = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const cards = [...document.querySelectorAll(".card")];
  const rows = [...document.querySelectorAll("#rows tr")];
  const slider = byId("threshold"), lens = byId("lens"), search = byId("search");
  const STRONGEST = 0.75 * 255; // opacity of the value 1, as in the overlay files
  let threshold = start, filter = "all", words = [], open = -1;

  // --- maps: grey patch map -> colours of the fixed scale; an image that is called normal has no outline

  const isBad = (one) => Number(one.dataset.score) >= threshold;

  function drawMap(canvas, source, width, height, outlined) {
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const values = enlarge(source, width, height);
    const picture = context.createImageData(width, height);
    const pixels = picture.data;
    const reach = Math.max(1, Math.round(Math.max(width, height) / 320));
    const level = threshold * 255;
    for (let y = 0, at = 0; y < height; y++) {
      for (let x = 0; x < width; x++, at++) {
        const value = values[at];
        let [red, green, blue] = colours[Math.round(value)];
        let opacity = (STRONGEST * value) / 255;
        if (outlined && isBorder(values, x, y, width, height, reach, level)) { // white inside, a dark rim outside
          red = green = blue = value >= level ? 255 : 0;
          opacity = value >= level ? 255 : 150;
        }
        pixels[4 * at] = red;
        pixels[4 * at + 1] = green;
        pixels[4 * at + 2] = blue;
        pixels[4 * at + 3] = opacity;
      }
    }
    context.putImageData(picture, 0, 0);
  }

  // whether a neighbour lies on the other side of the threshold
  function isBorder(values, x, y, width, height, reach, level) {
    const at = y * width + x, inside = values[at] >= level;
    return (x >= reach && values[at - reach] >= level !== inside) ||
      (x + reach < width && values[at + reach] >= level !== inside) ||
      (y >= reach && values[at - reach * width] >= level !== inside) ||
      (y + reach < height && values[at + reach * width] >= level !== inside);
  }

  // bilinear with half-pixel centres, as the maps on disk
  function enlarge(source, width, height) {
    const columns = source.naturalWidth, lines = source.naturalHeight;
    const small = document.createElement("canvas");
    small.width = columns;
    small.height = lines;
    const context = small.getContext("2d", { willReadFrequently: true });
    context.drawImage(source, 0, 0);
    const grey = context.getImageData(0, 0, columns, lines).data;
    const values = new Float32Array(width * height);
    const across = Array.from({ length: width }, (_, x) => neighbours(x, columns, width));
    for (let y = 0, at = 0; y < height; y++) {
      const [y0, y1, v] = neighbours(y, lines, height);
      for (let x = 0; x < width; x++, at++) {
        const [x0, x1, u] = across[x];
        const upper = grey[4 * (y0 * columns + x0)] * (1 - u) + grey[4 * (y0 * columns + x1)] * u;
        const lower = grey[4 * (y1 * columns + x0)] * (1 - u) + grey[4 * (y1 * columns + x1)] * u;
        values[at] = upper * (1 - v) + lower * v;
      }
    }
    return values;
  }

  function neighbours(position, count, length) {
    const at = Math.min(Math.max(((position + 0.5) * count) / length - 0.5, 0), count - 1);
    const low = Math.floor(at);
    return [low, Math.min(low + 1, count - 1), at - low];
  }

  async function drawCard(card) {
    const view = card.querySelector(".view");
    const [photo, source] = view.querySelectorAll("img");
    let canvas = view.querySelector("canvas");
    if (!canvas) view.append((canvas = document.createElement("canvas")));
    await Promise.all([ready(photo), ready(source)]);
    if (canvas.dataset.threshold === String(threshold)) return;
    drawMap(canvas, source, photo.naturalWidth, photo.naturalHeight, isBad(card));
    canvas.dataset.threshold = threshold;
  }

  function ready(image) {
    return image.complete && image.naturalWidth ? null : image.decode();
  }

  const seen = new Set(); // cards near the window: only their maps are drawn again when the threshold moves
  const watcher = new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) {
      if (isIntersecting) {
        seen.add(target);
        drawCard(target);
      } else seen.delete(target);
    }
  }, { rootMargin: "200px" });
  cards.forEach((card) => watcher.observe(card));

  // --- threshold and filters

  function decide() {
    const bad = scores.filter((score) => score >= threshold).length;
    byId("bad-count").textContent = bad;
    byId("good-count").textContent = scores.length - bad;
    document.documentElement.style.setProperty("--threshold", threshold);
    byId("threshold-value").textContent = threshold.toFixed(3);
    byId("reset").hidden = threshold === start;
    const { command } = byId("again").dataset;
    byId("again").hidden = threshold === start || !command;
    byId("again").querySelector("code").textContent = `${command} --threshold ${threshold.toFixed(3)}`;
    byId("copy").textContent = "Copy";
    document.querySelectorAll("#histogram i").forEach((bar, at) => bar.classList.toggle("bad", (at + 0.5) / bins >= threshold));
    for (const one of [...cards, ...rows]) {
      one.classList.toggle("bad", isBad(one));
      one.querySelector(".verdict").textContent = isBad(one) ? "anomalous" : "normal";
      const notes = one.querySelector(".notes");
      if (notes) notes.hidden = Number(one.dataset.score) >= start && !isBad(one);
    }
    seen.forEach(drawCard);
    show();
  }

  function show() {
    let shown = 0;
    for (const one of [...cards, ...rows]) {
      const fits = (filter === "all" || (filter === "bad") === isBad(one)) && words.every((word) => one.dataset.text.includes(word));
      one.hidden = !fits;
      shown += fits;
    }
    byId("nothing").hidden = shown > 0;
  }

  function drawHistogram() {
    const counts = new Array(bins).fill(0);
    for (const score of scores) counts[Math.min(bins - 1, Math.floor(score * bins))]++;
    const top = Math.max(1, ...counts);
    for (const count of counts) {
      const bar = document.createElement("i");
      bar.style.height = count ? `max(3px, ${(100 * Math.sqrt(count / top)).toFixed(1)}%)` : "0";
      byId("histogram").append(bar);
    }
  }

  slider.addEventListener("input", () => {
    threshold = Number(slider.value);
    requestAnimationFrame(decide);
  });
  byId("copy").addEventListener("click", async () => {
    await navigator.clipboard?.writeText(byId("again").querySelector("code").textContent);
    byId("copy").textContent = "Copied";
  });
  byId("reset").addEventListener("click", () => {
    slider.value = threshold = start;
    decide();
  });
  document.querySelectorAll("[data-filter]").forEach((button) => button.addEventListener("click", () => {
    filter = button.dataset.filter;
    document.querySelectorAll("[data-filter]").forEach((one) => one.setAttribute("aria-pressed", one === button));
    show();
  }));
  search.addEventListener("input", () => {
    words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    show();
  });
  byId("always").addEventListener("change", (event) => document.body.classList.toggle("maps", event.target.checked));

  // --- one image, large

  async function look(at) {
    open = at;
    const [photo, source] = cards[at].querySelectorAll(".view img");
    await Promise.all([ready(photo), ready(source)]);
    byId("lens-photo").src = photo.src;
    const factor = Math.max(2, Math.round(1200 / Math.max(photo.naturalWidth, photo.naturalHeight)));
    drawMap(byId("lens-map"), source, photo.naturalWidth * factor, photo.naturalHeight * factor, isBad(cards[at]));
    const heading = document.createElement("p");
    heading.className = "name";
    for (const part of [cards[at].querySelector("h2").textContent, Number(cards[at].dataset.score).toFixed(3)]) {
      heading.append(Object.assign(document.createElement("span"), { textContent: part }));
    }
    const details = [...cards[at].querySelectorAll(".truth, .notes")].map((part) => part.cloneNode(true));
    byId("lens-text").replaceChildren(heading, ...details);
    if (!lens.open) lens.showModal();
  }

  function step(by) {
    const shown = cards.map((card, at) => at).filter((at) => !cards[at].hidden);
    const next = shown[(shown.indexOf(open) + by + shown.length) % shown.length];
    if (next !== undefined) look(next);
  }

  cards.forEach((card, at) => card.querySelector(".view").addEventListener("click", () => look(at)));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("opacity").addEventListener("input", (event) => { byId("lens-map").style.opacity = event.target.value; });
  lens.addEventListener("close", () => cards[open]?.querySelector(".view").focus());
  lens.addEventListener("click", (event) => { if (event.target === lens) lens.close(); });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=search]")) return;
    if (lens.open) {
      if (event.target.matches("input")) return;
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
    } else if (event.key === "/") {
      event.preventDefault();
      search.focus();
    } else if (event.key === "m" || event.key === "M") byId("always").click();
  });

  window.addEventListener("beforeprint", () => cards.forEach(drawCard));
  drawHistogram();
  decide();
})();
