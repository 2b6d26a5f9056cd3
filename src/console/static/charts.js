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

/* A tick of the axis of time, in UTC: the day, and the time where all is within two days. */
function tick(seconds, index, ticks) {
  const instant = new Date(seconds * 1000).toISOString();
  const within = ticks[ticks.length - 1].value - ticks[0].value;
  return within > 2 * 86400 ? instant.slice(0, 10) : instant.slice(5, within > 600 ? 16 : 19).replace("T", " ");
}

function draw(canvas) {
  const chart = JSON.parse(canvas.dataset.chart);
  const ink = color("--pico-color");
  const grid = color("--pico-muted-border-color");
  const isLine = chart.kind === "line";
  const isOverTime = chart.seconds.length > 0;
  const datasets = chart.series.map((series, index) => {
    const shade = color(`--series-${(index % SERIES_MAX) + 1}`);
    return {
      label: series.name,
      data: isOverTime ? series.values.map((y, index) => ({ x: chart.seconds[index], y })) : series.values,
      borderColor: shade,
      backgroundColor: isLine && !chart.isStacked ? "transparent" : shade + (isLine ? "88" : ""),
      fill: isLine && chart.isStacked ? (index === 0 ? "origin" : "-1") : false,
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
        x: {
          type: isOverTime ? "linear" : "category",
          bounds: "data",
          stacked: chart.isStacked,
          ticks: { color: ink, maxRotation: 0, ...(isOverTime ? { callback: tick, maxTicksLimit: 8 } : {}) },
          grid: { color: grid },
        },
        y: { stacked: chart.isStacked, beginAtZero: true, ticks: { color: ink, precision: 0 }, grid: { color: grid } },
      },
      plugins: {
        legend: { labels: { color: ink } },
        tooltip: {
          callbacks: {
            title: (items) => chart.labels[items[0].dataIndex],
            afterBody: (items) => texts(chart.marks, chart.labels[items[0].dataIndex]),
          },
        },
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
