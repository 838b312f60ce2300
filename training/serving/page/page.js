// The page: a drawing or a file goes to the server at every change, and its answer is shown.

import { FeatureMap } from '/map.js';
import { Pad } from '/pad.js';

const get = (id) => document.getElementById(id);
const MOST_BARS = 10;
const percent = (share) => (share === null ? '–' : `${(100 * share).toFixed(share < 0.9995 ? 1 : 0)} %`);
const number = (value) => (value === null ? 'no number' : value.toFixed(2).replace('-', '−'));

let runs = [];
let run = null;
let map = null;
let file = null; // the image that was opened, if any
const pad = new Pad(get('pad'), () => {
  if (file) forget();
  ask();
});

// One request at a time: what changes meanwhile is asked when the answer has come.
let busy = false;
let again = false;
async function ask() {
  refresh();
  again = busy;
  if (busy) return;
  busy = true;
  document.body.ariaBusy = 'true';
  do {
    again = false;
    try {
      await answer();
    } catch {
      complain('The server does not answer: is it still running?');
    }
  } while (again);
  busy = false;
  document.body.ariaBusy = 'false';
}

async function answer() {
  const asked = run;
  if (!file && pad.empty) return show(null);
  const form = new FormData();
  form.append('images', file ?? (await pad.image()), 'image');
  form.append('run', asked.name);
  form.append('drawing', !file);
  form.append('include', 'input');
  if (asked.map) form.append('include', 'position');
  const reply = await (await fetch('/v1/predict', { method: 'POST', body: form })).json();
  if (asked !== run || (!file && pad.empty)) return (again = true);
  const problem = reply.error ?? reply.predictions[0].error;
  return problem ? complain(problem) : show(reply.predictions[0]);
}

function complain(problem) {
  show(null);
  get('problem').textContent = problem;
  get('problem').hidden = false;
}

function show(entry) {
  get('problem').hidden = true;
  get('class').textContent = entry ? entry.class : '–';
  get('class').classList.toggle('word', Boolean(entry) && entry.class.length > 2);
  get('sure').textContent = entry ? percent(entry.probability) : file ? '' : run.drawing ? 'Nothing drawn yet' : 'No image yet';
  const flag = entry?.unlike_training ?? null;
  get('flag').hidden = flag === null;
  get('flag').className = flag ? 'unlike' : 'like';
  get('flag').textContent = flag ? 'Unlike the training data' : 'Like the training data';
  get('likelihood').hidden = run.threshold === null;
  get('value').textContent = entry ? number(entry.log_likelihood) : '–';
  get('mark').hidden = !entry || entry.log_likelihood === null;
  if (!get('mark').hidden) get('mark').style.left = `${gauge(entry.log_likelihood)}%`;
  get('input').hidden = !entry;
  if (entry) get('input').src = `data:image/png;base64,${entry.input}`;
  bars(entry);
  map?.show(entry?.position ?? null);
}

// Where a log-likelihood is between the ends of the gauge: the threshold in the middle, class means at the right.
function gauge(value) {
  const share = (value - run.threshold) / (run.likeliest - run.threshold || 1);
  return 50 + 48 * Math.min(Math.max(share, -1), 1);
}

// All classes in their order, or of many the most probable ones.
function bars(entry) {
  const shares = entry?.probabilities ?? run.classes.map(() => null);
  let order = [...run.classes.keys()];
  if (order.length > MOST_BARS) order = order.sort((a, b) => shares[b] - shares[a]).slice(0, MOST_BARS);
  get('bars').replaceChildren(
    ...order.map((k) => {
      const row = document.createElement('li');
      const [name, bar, share] = ['span', 'i', 'span'].map((tag) => row.appendChild(document.createElement(tag)));
      name.textContent = name.title = run.classes[k];
      bar.style.setProperty('--share', `${100 * (shares[k] ?? 0)}%`);
      share.textContent = percent(shares[k]);
      row.className = entry && run.classes[k] === entry.class ? 'best' : '';
      return row;
    }),
  );
}

// Buttons, hints and the board, as they go with what is drawn or opened.
function refresh() {
  const nothing = !file && pad.empty;
  get('undo').disabled = pad.empty;
  get('clear').disabled = nothing;
  get('hint').hidden = !nothing;
  get('pad').hidden = !run.drawing || file !== null;
  get('photo').hidden = !file;
}

function open(opened) {
  if (!opened) return;
  forget();
  pad.strokes = [];
  pad.show();
  file = opened;
  get('photo').src = URL.createObjectURL(file);
  ask();
}

function forget() {
  URL.revokeObjectURL(get('photo').src);
  get('photo').removeAttribute('src');
  get('file').value = '';
  file = null;
}

async function choose(name) {
  run = runs.find((one) => one.name === name) ?? runs[0];
  const [channels, height, width] = run.shape;
  get('run').value = run.name;
  document.title = `${run.name}: try a net`;
  history.replaceState(null, '', `#${encodeURIComponent(run.name)}`);
  get('about').textContent = `${run.dataset}, trained by ${run.loss === 'lgm' ? 'L-GM' : run.loss} loss`
    + (run.accuracy === null ? '' : `; ${percent(run.accuracy)} of the validation images are classified correctly`);
  get('task').textContent = run.drawing ? 'Draw a digit' : 'Drop a photograph';
  get('hint').textContent = run.drawing
    ? 'Draw here with mouse, pen or finger'
    : `Drop a photograph here, paste one, or click to choose: ${run.classes.slice(0, 10).join(', ')}${run.classes.length > 10 ? ', …' : ''}`;
  get('undo').hidden = !run.drawing;
  get('board').classList.toggle('photo', !run.drawing);
  get('size').textContent = `${width} × ${height} pixels${channels === 1 ? ', grey' : ''}`;
  get('threshold').textContent = run.threshold === null ? '' : `threshold ${number(run.threshold)}`;
  get('bars').classList.toggle('words', run.classes.some((one) => one.length > 2));
  forget();
  map?.close();
  map = null;
  get('place').hidden = !run.map;
  if (run.map) {
    const asked = run;
    const data = await (await fetch(`/v1/runs/${encodeURIComponent(run.name)}/map`)).json();
    if (asked !== run) return;
    map = new FeatureMap(get('map'), data, run.classes);
    get('legend').textContent = legend(data);
  }
  pad.strokes = [];
  pad.update();
}

function legend({ dimensions, points, means, ellipses }) {
  const parts = ['Ring: this image'];
  if (run.drawing) parts.push('dashes: its way there');
  if (points.length) parts.push(`dots: ${points.length} validation images`);
  if (ellipses && dimensions === 2 && run.threshold !== null) parts.push('ellipses: likely enough to be like the training data');
  else if (ellipses) parts.push('ellipses: 95 % of each class as the mixture sees it in this plane');
  if (means) parts.push(`names: class ${run.loss === 'lgm' ? 'means' : 'centers'}`);
  const plane = dimensions > 2 ? ` Two principal axes of ${dimensions} dimensions, so distances seem shorter than they are.` : '';
  return `${parts.join('; ')}.${plane}`;
}

get('undo').addEventListener('click', () => pad.undo());
get('clear').addEventListener('click', () => {
  forget();
  pad.clear();
});
get('run').addEventListener('change', () => choose(get('run').value));
get('file').addEventListener('change', () => open(get('file').files[0]));
get('board').addEventListener('click', () => run.drawing || get('file').click());
document.addEventListener('paste', (event) => open(event.clipboardData.files[0]));
for (const name of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    get('board').classList.toggle('over', name === 'dragover');
    if (name === 'drop') open(event.dataTransfer.files[0]);
  });
}

({ runs } = await (await fetch('/v1/runs')).json());
get('run').replaceChildren(...runs.map((one) => new Option(one.name, one.name)));
await choose(decodeURIComponent(location.hash.slice(1)));
