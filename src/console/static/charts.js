/* Draws each chart of a page with Chart.js, in the colours of the page, light or dark. */
"use strict";
const SERIES_MAX = 6;
const drawn = [];

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function texts(marks, label) {
  return marks.filter((mark) => mark.label === label).map((mark) => mark.text);
}

function draw(canvas) {
  const chart = JSON.parse(canvas.dataset.chart);
  const ink = color("--pico-color");
  const grid = color("--pico-muted-border-color");
  const isLine = chart.kind === "line";
  const datasets = chart.series.map((series, index) => {
    const shade = color(`--series-${(index % SERIES_MAX) + 1}`);
    return {
      label: series.name,
      data: series.values,
      borderColor: shade,
      backgroundColor: isLine && !chart.isStacked ? "transparent" : shade + (isLine ? "88" : ""),
      fill: isLine && chart.isStacked,
      stepped: isLine,
      pointRadius: isLine ? chart.labels.map((l) => (texts(chart.marks, l).length ? 4 : 0)) : 0,
      pointHitRadius: 8,
      borderWidth: isLine ? 2 : 0,
    };
  });
  canvas.parentElement.hidden = false;
  return new Chart(canvas, {
    type: chart.kind,
    data: { labels: chart.labels, datasets },
    options: {
      animation: false,
      maintainAspectRatio: false,
      color: ink,
      interaction: { mode: "index", intersect: false },
      scales: {
        x: { stacked: chart.isStacked, ticks: { color: ink, maxRotation: 0 }, grid: { color: grid } },
        y: { stacked: chart.isStacked, beginAtZero: true, ticks: { color: ink }, grid: { color: grid } },
      },
      plugins: {
        legend: { labels: { color: ink } },
        tooltip: { callbacks: { afterBody: (items) => texts(chart.marks, items[0].label) } },
      },
    },
  });
}

function drawAll() {
  while (drawn.length) drawn.pop().destroy();
  for (const canvas of document.querySelectorAll("canvas[data-chart]")) drawn.push(draw(canvas));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawAll();
