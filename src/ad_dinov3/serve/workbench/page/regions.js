// --- from a map to a mask, regions and outlines; the same rules as in Python (infer/decide.py)

// connected pixels (8 neighbours) whose value reaches the threshold, highest peak first; areas in px of the image
function findRegions(map, threshold, leastArea, size) {
  const { width, height, values } = map, labels = new Int32Array(width * height), stack = [], found = [];
  const across = size.width / width, down = size.height / height, level = Math.fround(threshold);
  for (let start = 0, label = 0; start < values.length; start++) {
    if (labels[start] || values[start] < level) continue;
    const pixels = [];
    labels[start] = ++label;
    stack.push(start);
    while (stack.length) {
      const at = stack.pop(), x = at % width, y = (at - x) / width;
      pixels.push(at);
      for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row++) {
        for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
          const next = row * width + column;
          if (labels[next] || values[next] < level) continue;
          labels[next] = label;
          stack.push(next);
        }
      }
    }
    const area = pixels.length * across * down;
    if (area < leastArea) continue;
    const has = (x, y) => x >= 0 && x < width && y >= 0 && y < height && labels[y * width + x] === label;
    found.push({ ...describePixels(pixels, map, across, down), area: Math.round(area), outline: outline(start, width, has) });
  }
  return found.sort((one, other) => other.peak - one.peak || other.area - one.area);
}

function describePixels(pixels, { width, values }, across, down) {
  let peak = 0, sum = 0, x0 = Infinity, y0 = Infinity, x1 = 0, y1 = 0, sumX = 0, sumY = 0, sumXX = 0, sumYY = 0, sumXY = 0;
  for (const at of pixels) {
    const x = at % width, y = (at - x) / width, value = values[at];
    if (value > peak) peak = value;
    sum += value;
    if (x < x0) x0 = x;
    if (x > x1) x1 = x;
    if (y < y0) y0 = y;
    if (y > y1) y1 = y;
    sumX += x; sumY += y; sumXX += x * x; sumYY += y * y; sumXY += x * y;
  }
  const count = pixels.length, meanX = sumX / count, meanY = sumY / count;
  const varX = sumXX / count - meanX * meanX + 1 / 12, varY = sumYY / count - meanY * meanY + 1 / 12, both = sumXY / count - meanX * meanY;
  const middle = (varX + varY) / 2, spread = Math.hypot((varX - varY) / 2, both);
  return {
    peak, mean: sum / count,
    box: [x0 * across, y0 * down, (x1 + 1) * across, (y1 + 1) * down].map(Math.round),
    centroid: [(meanX + 0.5) * across, (meanY + 0.5) * down],
    elongation: Math.sqrt((middle + spread) / Math.max(middle - spread, 1e-9)),
  };
}

// the outer boundary as corners between pixels of the map, from the region's first pixel, the region on the right
function outline(start, width, has) {
  const steps = [[1, 0], [0, 1], [-1, 0], [0, -1]];
  // ahead of a walker at a corner: the pixel on the left and the one on the right, for each heading
  const sides = [[[0, -1], [0, 0]], [[0, 0], [-1, 0]], [[-1, 0], [-1, -1]], [[-1, -1], [0, -1]]];
  const beginX = start % width, beginY = (start - beginX) / width, corners = [];
  let x = beginX, y = beginY, heading = 0;
  do {
    corners.push([x, y]);
    let turn = 0;
    while (turn === 0) {
      x += steps[heading][0];
      y += steps[heading][1];
      const [left, right] = sides[heading].map(([dx, dy]) => has(x + dx, y + dy));
      turn = left ? -1 : right ? 0 : 1;
    }
    heading = (heading + turn + 4) % 4;
  } while (!(x === beginX && y === beginY && heading === 0));
  return corners;
}

const SPOT_SHARE = 0.002, SCRATCH_ELONGATION = 4;

function positionWords([x, y], { width, height }) {
  const column = ["left", "", "right"][Math.min(Math.floor((3 * x) / width), 2)];
  const row = ["upper", "centre", "lower"][Math.min(Math.floor((3 * y) / height), 2)];
  return column ? `${row} ${column}` : row === "centre" ? row : `${row} centre`;
}

function kindWords(region, threshold, { width, height }) {
  const rise = (region.peak - threshold) / Math.max(1 - threshold, 1e-9);
  const severity = rise < 1 / 3 ? "faint" : rise < 2 / 3 ? "clear" : "strong";
  const shape = region.elongation >= SCRATCH_ELONGATION ? "scratch-like" : region.area < SPOT_SHARE * width * height ? "spot-like" : "patch-like";
  return `${severity}, ${shape}`;
}
