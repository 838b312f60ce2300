// A pad for one digit: strokes of pointers, drawn in the colours of the page.

const WIDTH = 0.085; // of a stroke, in sides of the pad: 2 to 3 pixels of a digit of MNIST
const SIDE = 280; // pixels of the image that goes to the server

export class Pad {
  // `changed()` is called at every change, while a stroke is drawn too.
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.strokes = [];
    let stroke = null;
    const add = (event) => {
      const box = canvas.getBoundingClientRect();
      stroke.push([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
    };
    canvas.addEventListener('pointerdown', (event) => {
      if (event.button || stroke) return;
      canvas.setPointerCapture(event.pointerId);
      this.strokes.push((stroke = []));
      add(event);
      this.update();
    });
    canvas.addEventListener('pointermove', (event) => {
      if (!stroke) return;
      (event.getCoalescedEvents?.() ?? []).concat(event).forEach(add);
      this.update();
    });
    for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, () => (stroke = null));
    canvas.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.clear();
      if (event.key.toLowerCase() === 'z' && (event.ctrlKey || event.metaKey)) this.undo();
    });
    new ResizeObserver(() => this.show()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.show());
  }

  get empty() {
    return !this.strokes.length;
  }

  undo() {
    this.strokes.pop();
    this.update();
  }

  clear() {
    this.strokes = [];
    this.update();
  }

  update() {
    this.show();
    this.changed();
  }

  show() {
    const { canvas } = this;
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    if (!side) return;
    canvas.width = canvas.height = side;
    this.draw(canvas.getContext('2d'), side, getComputedStyle(canvas).color);
  }

  draw(context, side, colour) {
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = WIDTH * side;
    context.lineCap = context.lineJoin = 'round';
    for (const [first, ...rest] of this.strokes) {
      context.beginPath();
      context.moveTo(first[0] * side, first[1] * side);
      context.lineTo(first[0] * side + 0.1, first[1] * side); // a dot, where nothing follows
      for (const [x, y] of rest) context.lineTo(x * side, y * side);
      context.stroke();
    }
  }

  // The drawing as a PNG file, white on black.
  image() {
    const copy = document.createElement('canvas');
    copy.width = copy.height = SIDE;
    const context = copy.getContext('2d');
    context.fillRect(0, 0, SIDE, SIDE);
    this.draw(context, SIDE, 'white');
    return new Promise((done) => copy.toBlob(done, 'image/png'));
  }
}
