PYTHON ?= python3
VENV   ?= .venv
ifneq ($(origin PROMPT),command line)  # one in the environment is the shell's own
PROMPT = a large red circle moves left slowly
endif
JOBS   ?= 2

BIN := $(VENV)/bin
CORE := $(VENV)/core
INSTALLED := $(VENV)/installed
VENV_LOWEST ?= .venv-lowest
VENV_NEWEST ?= .venv-newest
VENV_AUDIT ?= .venv-audit
VENV_NBGRADER ?= .venv-nbgrader
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
NBVAL = --nbval --nbval-current-env --nbval-cell-timeout=600 --nbval-sanitize-with tests/nbval.cfg
BUILD = $(BIN)/python scripts/notebooks.py
unexport PROMPT  # make would expand what looks like a variable of its own in it

.PHONY: help env systems questions demo test lowest parity-full lab notebooks student student-zip student-trial browser train \
    metrics recordings pictures validity course-text slides site times nbgrader nbgrader-trial four-kernels guiders bench \
    gpu quality one-step docs after-training recipes speedrun fuzz adapter newest constraints audit soak try
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22
	@echo 'Variables: PROMPT="..." VENV=.venv PYTHON=python3 JOBS=2 ONLY="" BUDGET=90m'

env: $(INSTALLED)  ## the environment .venv with everything that the other commands need

$(INSTALLED): $(CORE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[lab,test,train]"
	@touch $@

# only what the library itself needs, so that the first video comes soon
$(CORE): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("minit2v needs Python 3.10 or newer, found %d.%d" % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

demo: export DEMO_PROMPT := $(value PROMPT)
demo: $(CORE)  ## a video from a prompt with the shipped model: make demo PROMPT="a small blue ring moves up"
	$(BIN)/minit2v demo -- "$$DEMO_PROMPT"

test: env  ## unit and parity tests, and the notebooks
	OMP_NUM_THREADS=1 MINIT2V_FAST=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile tests minit2v \
	    --ignore tests/browser $(if $(NOTEBOOKS),$(NBVAL) $(NOTEBOOKS))

lowest: env  ## unit tests with the oldest packages that pyproject.toml allows, in .venv-lowest; downloads gigabytes
	$(PYTHON) -m venv --clear $(VENV_LOWEST)
	$(BIN)/python scripts/lowest.py lab train test > $(VENV_LOWEST)/requirements.txt
	$(VENV_LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -r $(VENV_LOWEST)/requirements.txt
	$(VENV_LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	OMP_NUM_THREADS=1 MINIT2V_FAST=1 $(VENV_LOWEST)/bin/python -m pytest -q -n $(JOBS) --dist loadfile tests minit2v \
	    --ignore tests/browser

newest:  ## unit tests with the newest packages there are, in .venv-newest; says what differs; downloads gigabytes
	$(PYTHON) -m venv --clear $(VENV_NEWEST)
	$(VENV_NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(VENV_NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[lab,test,train]"
	@$(VENV_NEWEST)/bin/python scripts/constraints.py --against constraints.txt || true
	OMP_NUM_THREADS=1 MINIT2V_FAST=1 $(VENV_NEWEST)/bin/python -m pytest -q -n $(JOBS) --dist loadfile tests minit2v \
	    --ignore tests/browser

constraints: test  ## constraints.txt: the releases in .venv, after its tests have passed
	$(BIN)/python scripts/constraints.py > $(VENV)/constraints.txt
	cp $(VENV)/constraints.txt constraints.txt

# strict: a release that could not be looked up is not a release without a fault
audit:  ## known faults of the releases in constraints.txt, by pip-audit in .venv-audit; asks the package index
	$(PYTHON) -m venv --clear $(VENV_AUDIT)
	$(VENV_AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV_AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

parity-full: env  ## the UNet of the released size against diffusers: 12 GB of memory, ten minutes
	MINIT2V_SLOW=1 $(BIN)/python -m pytest -q tests/test_full_size.py

lab: env  ## your copy of the notebooks in JupyterLab, without solutions; what you have worked in is never overwritten
	$(BUILD) student
	$(BIN)/jupyter lab $(patsubst notebooks/%,notebooks/student/%,$(firstword $(sort $(NOTEBOOKS))))

notebooks: env  ## run notebooks/src and write the notebooks with their outputs: make notebooks ONLY="05 06"
	$(BUILD) build $(ONLY)
	$(BUILD) text
	$(BUILD) hosted

course-text: env  ## docs/course.txt: text, code and printed outputs of all notebooks in one file
	$(BUILD) text

student: env  ## copies with stubs in notebooks/student, with solutions in notebooks/solutions
	$(BUILD) student
	$(BUILD) solutions

student-zip: env  ## dist/minit2v-lab.zip: all that the machines of a lab need, without solutions
	$(BUILD) zip

student-trial: env  ## student-zip with the solutions pasted in, strict nbval: make student-trial ONLY="01 02"
	$(BIN)/python scripts/student_trial.py $(ONLY)

site: env  ## the site in dist/site, for any browser without a network; its widgets turn after make notebooks
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[site]"
	$(BIN)/python scripts/website.py

times: env  ## docs/times.json: how long each notebook runs, on a quiet machine; half an hour
	$(BUILD) times

nbgrader: env  ## assignments for nbgrader in nbgrader/source, and its settings: make nbgrader ONLY="01 02 05"
	$(BUILD) nbgrader $(ONLY)

nbgrader-trial:  ## assignments through nbgrader, in .venv-nbgrader: nothing written is 0 points, solutions are all
	$(PYTHON) -m venv --clear $(VENV_NBGRADER)
	$(VENV_NBGRADER)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[lab]" "nbgrader>=0.9"
	$(VENV_NBGRADER)/bin/python scripts/nbgrader_trial.py $(ONLY)

four-kernels: env  ## lab B by four people on this machine at once: memory and seconds of each kernel
	$(BIN)/python scripts/four_kernels.py B

slides: env  ## slides of notebooks in slides/, for any browser without a network: make slides ONLY="07"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[slides]"
	$(BIN)/python scripts/slides.py $(ONLY)

try: env  ## dist/try: a static page on which mini makes videos in the browser; fetches ONNX Runtime Web by npm
	$(BIN)/python scripts/try_page.py $(ARGUMENTS)

browser: env  ## the widgets in JupyterLab and the pages of make try and minit2v serve, in a headless Chromium
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[lab,test,train,browser,serve]"
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { [ "$$(id -u)" = 0 ] && \
	    apt-get update -qq && apt-get install -y -qq chromium; } || { echo 'make browser: expected the program chromium,' \
	    'found none; install it (Debian, Ubuntu: sudo apt-get install chromium) and try again' >&2; exit 2; }
	$(BIN)/python -m pytest -q tests/browser

# threads that wait actively, each on a core of its own, lose less time between the many small operations
train: export OMP_WAIT_POLICY = active
train: export OMP_PROC_BIND = true
train: env  ## train the shipped mini model from scratch, under four hours on two cores; continues after a stop
	$(BIN)/minit2v train all --preset mini --out runs/mini --resume $(if $(BUDGET),--budget $(BUDGET))
	mkdir -p data/mini
	cp runs/mini/config.json runs/mini/*.safetensors data/mini/
	@echo 'the trained model is in data/mini; measure it: $(BIN)/minit2v evaluate --model mini'

metrics: env  ## train the networks of the metrics, 35 minutes; continues after a stop
	$(BIN)/minit2v train metrics --out runs/metrics --budget $(or $(BUDGET),35m) \
	    $(if $(wildcard runs/metrics/*/checkpoint.pt),--resume)
	mkdir -p data/metrics
	cp runs/metrics/*.safetensors runs/metrics/accuracy.json data/metrics/

recordings: env  ## make data/recordings and data/clip_sets again with the model in data/mini: two minutes
	$(BIN)/python scripts/record.py
	$(BIN)/python scripts/record_clips.py

guiders: env  ## data/guiders.npz, which notebook 10 shows: twenty minutes of one core; continues after a stop
	$(BIN)/python scripts/record_guiders.py

adapter: env  ## data/adapters/square-ring: a shape that mini learns from 20 clips, and how well; twenty minutes
	$(BIN)/python scripts/new_shape.py write runs/rings
	$(BIN)/minit2v train unet --from mini --lora 8 --data runs/rings --out runs/ring --budget 10m
	$(BIN)/python scripts/new_shape.py judge runs/ring
	mkdir -p data/adapters/square-ring
	cp runs/ring/adapter_config.json runs/ring/adapter_model.safetensors runs/ring/judged.json data/adapters/square-ring

recipes: env  ## what settings would add to the recipe, docs/recipes.json: hours; continues after a stop
	OMP_NUM_THREADS=1 $(BIN)/python scripts/recipes.py $(ARGUMENTS)

questions: env  ## the paper's three questions, docs/questions.json: some seven hours; continues after a stop
	$(BIN)/python scripts/recipes.py --experiment questions --minutes 8 --n 512 $(ARGUMENTS)

systems: env  ## the seven systems under one protocol, data/systems.json and docs/systems.png: hours; continues after a stop
	$(BIN)/python scripts/systems.py $(ARGUMENTS)
	$(BIN)/python scripts/write_docs.py

speedrun: env  ## does a training enter docs/speedrun.md: make speedrun ENTRY=runs/mini
	$(BIN)/python scripts/speedrun.py $(or $(ENTRY),runs/mini) $(ARGUMENTS)
	$(BIN)/python scripts/write_docs.py

fuzz: env  ## damaged and hostile inputs for everything that reads: make fuzz MINUTES=10 SEED=7
	OMP_NUM_THREADS=1 $(BIN)/python scripts/fuzz.py --minutes $(or $(MINUTES),10) --seed "$(SEED)"

soak: env  ## kills, many samples, company, a full disk: half an hour of one core: make soak ONLY="kills disk"
	OMP_NUM_THREADS=1 $(BIN)/python scripts/soak.py $(if $(ONLY),--only $(ONLY)) $(ARGUMENTS)

validity: env  ## which metric notices which damage, docs/validity.md and .png: six minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python scripts/validity.py docs/validity --jobs $(JOBS)

bench: env  ## compare with diffusers on a quiet machine, half an hour: make bench ONLY="forward-full sample"
	$(BIN)/python -m benchmarks.bench $(if $(ONLY),--only $(ONLY))
	$(BIN)/python scripts/write_docs.py

gpu: env  ## prove and measure the full-size path on a GPU, docs/gpu.json, eight minutes: make gpu ONLY="right-unet graphs"
	$(BIN)/python -m benchmarks.gpu $(if $(ONLY),--only $(ONLY)) $(ARGUMENTS)
	$(BIN)/python scripts/write_docs.py

quality: env  ## each sampler with 1 to 50 steps, docs/quality.md and .png: hours; continues after a stop
	$(BIN)/python scripts/quality.py
	$(BIN)/python scripts/write_docs.py

resumed = $(if $(wildcard runs/$(1)/distillation/checkpoint.pt),--resume)
one-step: env  ## mini-fast from mini, docs/one-step.md and .png: four hours; after a stop the same
	$(BIN)/minit2v distill mini --out runs/shortcut --steps 1600 $(call resumed,shortcut) $(ARGUMENTS)
	$(BIN)/minit2v distill mini --from runs/shortcut --out runs/mini-fast --steps 1200 $(call resumed,mini-fast) $(ARGUMENTS)
	mkdir -p data/mini-fast
	cp runs/mini-fast/config.json runs/mini-fast/unet.safetensors data/mini-fast
	echo '{"text": "mini", "autoencoder": "mini"}' > data/mini-fast/shared.json
	$(BIN)/minit2v evaluate --model mini-fast --dtype float32 --out runs/mini-fast/report.json
	$(BIN)/minit2v evaluate --model mini-fast --dtype float32 --steps 2 --out runs/mini-fast/report-2.json
	$(BIN)/minit2v evaluate --model mini-fast --dtype float32 --steps 4 --out runs/mini-fast/report-4.json
	cp runs/mini-fast/report*.json data/mini-fast
	$(BIN)/python scripts/one_step.py mini-fast mini docs/one-step
	$(BIN)/python scripts/write_docs.py

pictures: env  ## pictures of README, docs and model card, from data/mini and the run in runs/mini
	$(BIN)/python scripts/front_picture.py docs/front.webp
	$(BIN)/python scripts/sample_sheet.py mini docs/samples.png
	$(BIN)/python scripts/beyond.py docs/beyond.png
	$(BIN)/python scripts/plot_training.py runs/mini docs/training.png autoencoder text unet

docs: env  ## tables of README, docs, lab sheets and model card, and docs/symbols.html to print, from their sources
	$(BIN)/python scripts/write_docs.py
	$(BIN)/python scripts/symbols.py

after-training: env  ## everything that depends on new weights in data/mini, hours; then make test
	$(BIN)/minit2v evaluate --model mini --out data/mini/report.json
	$(BIN)/python scripts/guidance.py docs/guidance.json
	$(MAKE) recordings
	$(MAKE) guiders
	$(MAKE) pictures
	$(MAKE) notebooks
	$(MAKE) quality
	$(MAKE) docs
