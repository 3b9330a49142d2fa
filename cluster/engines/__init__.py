"""Models and engines.

The names below are what an engine of another package needs. They are imported on first use.
"""

from typing import TYPE_CHECKING

from headrace.operators.lazy_names import lazily

if TYPE_CHECKING:
    from headrace.cluster.engines.config import EngineConfig as EngineConfig
    from headrace.cluster.engines.estimating import EstimatingTokenizer as EstimatingTokenizer
    from headrace.cluster.engines.provider import EngineProvider as EngineProvider
    from headrace.cluster.engines.provider import Grammar as Grammar
    from headrace.cluster.engines.provider import Located as Located
    from headrace.cluster.engines.resources import Needs as Needs
    from headrace.operators.capabilities import Capabilities as Capabilities
    from headrace.operators.questions import Choice as Choice
    from headrace.operators.questions import Completion as Completion
    from headrace.operators.questions import Constraint as Constraint
    from headrace.operators.questions import Json as Json
    from headrace.operators.questions import Sampling as Sampling
    from headrace.operators.questions import Text as Text
    from headrace.pipelines.inference.engine import NO_CONTEXT_COST as NO_CONTEXT_COST
    from headrace.pipelines.inference.engine import ContextCost as ContextCost
    from headrace.pipelines.inference.engine import Engine as Engine
    from headrace.pipelines.inference.engine import EngineDied as EngineDied
    from headrace.pipelines.inference.engine import Message as Message
    from headrace.pipelines.inference.engine import MessageEngine as MessageEngine
    from headrace.pipelines.inference.engine import ModelInterface as ModelInterface
    from headrace.pipelines.inference.engine import RequestRefused as RequestRefused
    from headrace.pipelines.inference.engine import TokenEngine as TokenEngine
    from headrace.pipelines.inference.engine import Tokenizer as Tokenizer
    from headrace.pipelines.spec.resources import Model as Model
    from headrace.pipelines.spec.resources import Resources as Resources

_HOME = {
    "Capabilities": "headrace.operators.capabilities",
    "Choice": "headrace.operators.questions",
    "Completion": "headrace.operators.questions",
    "Constraint": "headrace.operators.questions",
    "ContextCost": "headrace.pipelines.inference.engine",
    "Engine": "headrace.pipelines.inference.engine",
    "EngineConfig": "headrace.cluster.engines.config",
    "EngineDied": "headrace.pipelines.inference.engine",
    "EngineProvider": "headrace.cluster.engines.provider",
    "EstimatingTokenizer": "headrace.cluster.engines.estimating",
    "Grammar": "headrace.cluster.engines.provider",
    "Json": "headrace.operators.questions",
    "Located": "headrace.cluster.engines.provider",
    "Message": "headrace.pipelines.inference.engine",
    "MessageEngine": "headrace.pipelines.inference.engine",
    "Model": "headrace.pipelines.spec.resources",
    "ModelInterface": "headrace.pipelines.inference.engine",
    "NO_CONTEXT_COST": "headrace.pipelines.inference.engine",
    "Needs": "headrace.cluster.engines.resources",
    "RequestRefused": "headrace.pipelines.inference.engine",
    "Resources": "headrace.pipelines.spec.resources",
    "Sampling": "headrace.operators.questions",
    "Text": "headrace.operators.questions",
    "TokenEngine": "headrace.pipelines.inference.engine",
    "Tokenizer": "headrace.pipelines.inference.engine",
}

__all__ = sorted(_HOME)  # noqa: PLE0605  (strings, from the table above)

__getattr__, __dir__ = lazily(__name__, _HOME)
