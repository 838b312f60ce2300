// The map of a feature space: validation images, class means, ellipses, and the image at hand.

const SVG = 'http://www.w3.org/2000/svg';
const TRAIL = 12; // positions

function make(parent, name, attributes, text) {
  const element = parent.appendChild(document.createElementNS(SVG, name));
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const colour = (label) => `var(--k${label % 10})`;

// From and to between which all but a few of the values lie.
function range(values, outside) {
  const sorted = [...values].sort((a, b) => a - b);
  const end = Math.floor(outside * sorted.length);
  return [sorted[end], sorted[sorted.length - 1 - end]];
}

export class FeatureMap {
  constructor(svg, data, classes) {
    this.svg = svg;
    this.data = data;
    this.classes = classes;
    this.trail = [];
    this.position = null;
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(svg);
  }

  close() {
    this.observer.disconnect();
    this.svg.replaceChildren();
  }

  // The scale, equal along both axes, at which all there is fits.
  fit() {
    const { points, means, ellipses } = this.data;
    const ends = (axis) => {
      const values = points.length ? range(points.map((point) => point[axis]), 0.005) : [];
      (means ?? []).forEach((mean, k) => {
        const reach = points.length || !ellipses ? 0 : Math.max(ellipses[k][0], ellipses[k][1]);
        values.push(mean[axis] - reach, mean[axis] + reach);
      });
      return [Math.min(...values), Math.max(...values)];
    };
    const [[left, right], [low, high]] = [ends(0), ends(1)];
    const scale = 0.88 * Math.min(this.width / (right - left || 1), this.height / (high - low || 1));
    this.place = ([x, y]) => [
      this.width / 2 + scale * (x - (left + right) / 2),
      this.height / 2 - scale * (y - (low + high) / 2),
    ];
    this.scale = scale;
  }

  draw() {
    const { points, labels, means, ellipses } = this.data;
    [this.width, this.height] = [this.svg.clientWidth, this.svg.clientHeight];
    if (!this.width) return;
    this.svg.setAttribute('viewBox', `0 0 ${this.width} ${this.height}`);
    this.svg.replaceChildren();
    this.fit();
    points.forEach((point, number) => {
      const [cx, cy] = this.place(point);
      make(this.svg, 'circle', { class: 'point', cx, cy, r: 2.4, fill: colour(labels[number]) });
    });
    (ellipses ?? []).forEach(([first, second, angle], k) => {
      const [x, y] = this.place(means[k]);
      make(this.svg, 'ellipse', {
        class: 'ellipse', rx: first * this.scale, ry: second * this.scale, fill: colour(k), stroke: colour(k),
        transform: `translate(${x} ${y}) rotate(${(-angle * 180) / Math.PI})`,
      });
    });
    (means ?? this.middles()).forEach((mean, k) => {
      if (!mean) return;
      const [x, y] = this.place(mean);
      const name = this.classes[k];
      make(this.svg, 'text', { class: name.length > 1 ? 'name word' : 'name', x, y, fill: colour(k) }, name);
    });
    this.marker = make(this.svg, 'g', {});
    this.mark();
  }

  // Without means, the middle of each class's points.
  middles() {
    const { points, labels } = this.data;
    return this.classes.map((_, k) => {
      const own = points.filter((_, number) => labels[number] === k);
      return own.length ? [0, 1].map((axis) => range(own.map((point) => point[axis]), 0.5)[0]) : null;
    });
  }

  // Show the image at hand at a position, or at the edge towards it; null shows none.
  show(position) {
    this.position = position;
    this.trail = position ? [...this.trail, position].slice(-TRAIL) : [];
    if (this.marker) this.mark();
  }

  mark() {
    this.marker.replaceChildren();
    if (!this.position) return;
    const [x, y] = this.place(this.position);
    const inside = (value, size) => Math.min(Math.max(value, 16), size - 16);
    const [cx, cy] = [inside(x, this.width), inside(y, this.height)];
    const path = this.trail.map((position) => this.place(position).join(',')).join(' ');
    this.marker.setAttribute('class', cx === x && cy === y ? 'marker' : 'marker out');
    make(this.marker, 'polyline', { class: 'trail', points: path });
    for (const name of ['halo', 'ring']) make(this.marker, 'circle', { class: name, cx, cy, r: 12 });
  }
}
